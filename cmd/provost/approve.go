package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules/approval"
)

// words declares a flag that may be given several times, or with commas.
func words(f *flag.FlagSet, name, usage string) *[]string {
	var all []string
	f.Func(name, usage, func(s string) error {
		for w := range strings.SplitSeq(s, ",") {
			if w = strings.TrimSpace(w); w != "" {
				all = append(all, w)
			}
		}
		return nil
	})
	return &all
}

// signing is how a statement gets its signatures.
type signing struct {
	print     bool
	statement string
	keys      *[]string
	sigs      *[]string
}

func declareSigning(f *flag.FlagSet) *signing {
	s := &signing{}
	f.BoolVar(&s.print, "print", false, "write the statement and hand nothing in: sign it elsewhere with ssh-keygen -Y sign -n "+approval.Namespace)
	f.StringVar(&s.statement, "statement", "", "`FILE` with a ready statement, instead of the flags that describe one")
	s.keys = words(f, "key", "sign with this SSH key: a private key `FILE`, or a public one whose other half the SSH agent holds; several times for several signers")
	s.sigs = words(f, "sig", "`FILE` with signatures of the statement that ssh-keygen made; several times for several signers")
	return s
}

// maxSignatures bounds a file of signatures that is read.
const maxSignatures = 256 << 10

// finish prints a statement, or hands it in with its signatures.
func (s *signing) finish(ctx context.Context, a *app, statement []byte, submit func(context.Context, client.Submission) (*client.Approval, error)) error {
	if s.print {
		_, err := a.stdout.Write(statement)
		return err
	}
	sub := client.Submission{}
	var err error
	if sub.Statement, sub.Signatures, err = s.sign(ctx, a, statement); err != nil {
		return err
	}
	got, err := submit(ctx, sub)
	if err != nil {
		return err
	}
	return a.show(got, func(w io.Writer) { showApproval(w, got) })
}

// sign returns a statement with its signatures, those that are given and those that are
// made now.
func (s *signing) sign(ctx context.Context, a *app, statement []byte) (text string, signatures []string, err error) {
	signatures = []string{}
	for _, name := range *s.sigs {
		b, err := readSmall(name, maxSignatures, false)
		if err != nil {
			return "", nil, fmt.Errorf("read signatures: %w", err)
		}
		signatures = append(signatures, string(b))
	}
	for _, key := range *s.keys {
		sig, err := sign(ctx, a, key, statement)
		if err != nil {
			return "", nil, err
		}
		signatures = append(signatures, string(sig))
	}
	if len(signatures) == 0 {
		return "", nil, &usageError{"nobody has signed: give --key or --sig, or --print to have the statement signed elsewhere"}
	}
	return string(statement), signatures, nil
}

// sign has ssh-keygen sign: it knows agents, hardware keys and passphrases, for which
// it asks on the terminal.
func sign(ctx context.Context, a *app, key string, statement []byte) ([]byte, error) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		return nil, fmt.Errorf("sign: %w; install OpenSSH's client, or sign elsewhere: --print and --sig", err)
	}
	dir, err := os.MkdirTemp("", "provost-approve-")
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "statement")
	if err := os.WriteFile(file, statement, 0o600); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	cmd := exec.CommandContext(ctx, keygen, "-Y", "sign", "-f", key, "-n", approval.Namespace, file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, a.stderr, a.stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("sign with %s: ssh-keygen: %w", key, err)
	}
	return readSmall(file+".sig", maxSignatures, false)
}

var uuidText = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func approveCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	s := &approval.Statement{Type: approval.Type}
	f := a.flags
	vms := words(f, "vm", "for this VM: a UUID, or the `NAME` of a domain of the daemon; several times for several")
	policies := words(f, "policy", "what the policy `NAME` would report; several times for several")
	on := words(f, "on", "only these event `TYPES`, such as file.modify; default: all")
	sums := words(f, "sha256", "only where the content has one of these digests, `HEX`; default: any content")
	f.StringVar(&s.Group, "group", "", "`NAME` of the approver group; must be that of the policies")
	f.StringVar(&s.Host, "host", "", "`ID` of the host that it is for; default: the daemon's")
	f.StringVar(&s.Scope.Condition, "condition", "", "only where this `CONDITION` is true, as in policies; default: all that the policies match")
	f.StringVar(&s.ID, "id", "", "`ID` of the approval, never used before; default: one is drawn")
	f.Uint64Var(&s.MaxUses, "max-uses", 100, "covers `N` entries of each VM at most")
	f.StringVar(&s.RequestedBy, "requested-by", "", "`NAME` of who wants it and so cannot sign it; default: who calls")
	f.StringVar(&s.Reason, "reason", "", "why, in your words; it is signed and sealed, and cannot be left out")
	from := f.String("from", "", "valid from this `TIME` on; default: now")
	lasts := f.Duration("for", time.Hour, "valid for this `DURATION`")
	how := declareSigning(f)
	return func(ctx context.Context, _ []string) error {
		c := dial()
		defer c.Close()
		if how.statement != "" {
			statement, err := readSmall(how.statement, approval.MaxStatement, false)
			if err != nil {
				return fmt.Errorf("read statement: %w", err)
			}
			if _, err := approval.Parse(statement); err != nil {
				return err
			}
			return how.finish(ctx, a, statement, c.Approve)
		}
		now := time.Now()
		begin, err := when("from", *from, now)
		if err != nil {
			return err
		}
		if begin.IsZero() {
			begin = now
		}
		for name, missing := range map[string]bool{"--group": s.Group == "", "--policy": len(*policies) == 0, "--vm": len(*vms) == 0, "--reason": strings.TrimSpace(s.Reason) == ""} {
			if missing {
				return &usageError{name + " is missing"}
			}
		}
		s.Policies, s.Scope.On = *policies, *on
		if len(*sums) > 0 {
			s.Scope.Content = &approval.Content{SHA256: *sums}
		}
		s.NotBefore, s.NotAfter, s.Issued = approval.At(begin), approval.At(begin.Add(*lasts)), approval.At(now)
		if err := resolve(ctx, c, s, *vms); err != nil {
			return err
		}
		if s.RequestedBy == "" {
			s.RequestedBy = caller()
		}
		s.Nonce = random()
		if s.ID == "" {
			s.ID = "apr-" + random()[:16]
		}
		statement, err := s.Encode()
		if err != nil {
			return err
		}
		if _, err := s.Matcher(); err != nil {
			return err
		}
		return how.finish(ctx, a, statement, c.Approve)
	}
}

// resolve sets the host and the UUIDs of a statement. It asks the daemon only where
// that is needed, so that statements can be made elsewhere.
func resolve(ctx context.Context, c *client.Client, s *approval.Statement, vms []string) error {
	if s.Host == "" {
		st, err := c.Status(ctx)
		if err != nil {
			return fmt.Errorf("find out which host it is for: %w; or give --host", err)
		}
		s.Host = st.Host
	}
	for _, vm := range vms {
		if !uuidText.MatchString(vm) {
			d, err := c.Domain(ctx, vm)
			if err != nil {
				return fmt.Errorf("find the VM %q: %w; or give its UUID (virsh domuuid)", vm, err)
			}
			vm = d.UUID
		}
		s.VMs = append(s.VMs, strings.ToLower(vm))
	}
	return nil
}

func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// caller is the name of who calls.
func caller() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

func approvalsListCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	all := a.flags.Bool("all", false, "also those that have ended or were revoked")
	return func(ctx context.Context, _ []string) error {
		c := dial()
		defer c.Close()
		list, err := c.Approvals(ctx)
		if err != nil {
			return err
		}
		shown := []client.Approval{}
		for _, one := range list {
			if *all || one.State == "valid" || one.State == "not begun" {
				shown = append(shown, one)
			}
		}
		return a.show(shown, func(w io.Writer) {
			if len(shown) == 0 {
				fmt.Fprintln(w, "no approvals; --all shows those that have ended too")
			}
			for _, one := range shown {
				fmt.Fprintf(w, "%-24s %-9s %s until %s, %s on %d VM(s), by %s: %s\n", one.ID, one.State, one.Group, one.NotAfter,
					strings.Join(one.Policies, ", "), len(one.VMs), strings.Join(one.Signers, ", "), one.Reason)
			}
		})
	}
}

func approvalsShowCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	out := a.flags.String("out", "", "write the statement to `FILE`, and the signatures to FILE.sig-1 and so on, for ssh-keygen -Y verify")
	return func(ctx context.Context, args []string) error {
		c := dial()
		defer c.Close()
		one, err := c.Approval(ctx, args[0])
		if err != nil {
			return err
		}
		if *out != "" {
			if one.Submission == nil {
				return errors.New("the daemon gives no statement")
			}
			files := map[string]string{*out: one.Submission.Statement}
			for i, sig := range one.Submission.Signatures {
				files[fmt.Sprintf("%s.sig-%d", *out, i+1)] = sig
			}
			for name, text := range files {
				if _, err := writeNew(name, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
					return err
				}
			}
		}
		return a.show(one, func(w io.Writer) {
			showApproval(w, one)
			if one.Submission != nil {
				fmt.Fprintf(w, "\n%s", one.Submission.Statement)
			}
		})
	}
}

func showApproval(w io.Writer, one *client.Approval) {
	fmt.Fprintf(w, "approval %s of %s: %s\n", one.ID, one.Group, one.State)
	fmt.Fprintf(w, "  policies      %s\n", strings.Join(one.Policies, ", "))
	fmt.Fprintf(w, "  valid         %s to %s\n", one.NotBefore, one.NotAfter)
	fmt.Fprintf(w, "  requested by  %s: %s\n", one.RequestedBy, one.Reason)
	fmt.Fprintf(w, "  signed by     %s\n", strings.Join(one.Signers, ", "))
	fmt.Fprintf(w, "  handed in     %s by %s\n", one.Taken, one.Submitter)
	if r := one.Revoked; r != nil {
		fmt.Fprintf(w, "  revoked       %s by %s: %s\n", r.At, strings.Join(r.Signers, ", "), r.Reason)
	}
	for _, vm := range one.VMs {
		uses := "uses not known any more"
		if vm.Uses != nil {
			uses = fmt.Sprintf("%d of %d uses", *vm.Uses, one.MaxUses)
		}
		fmt.Fprintf(w, "  VM            %s %s: %s\n", vm.UUID, vm.Name, uses)
	}
}

func approvalsRevokeCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	r := &approval.Revocation{Type: approval.RevocationType}
	f := a.flags
	f.StringVar(&r.Host, "host", "", "`ID` of the host that it is for; default: the daemon's")
	f.StringVar(&r.Group, "group", "", "`NAME` of the approver group; default: that of the approval, as the daemon knows it")
	f.StringVar(&r.RevokedBy, "revoked-by", "", "`NAME` of who revokes it; default: who calls")
	f.StringVar(&r.Reason, "reason", "", "why, in your words; it is signed and sealed, and cannot be left out")
	how := declareSigning(f)
	return func(ctx context.Context, args []string) error {
		c := dial()
		defer c.Close()
		if how.statement != "" {
			statement, err := readSmall(how.statement, approval.MaxStatement, false)
			if err != nil {
				return fmt.Errorf("read statement: %w", err)
			}
			v, err := approval.ParseRevocation(statement)
			if err != nil {
				return err
			}
			if v.ID != args[0] {
				return &usageError{fmt.Sprintf("the statement revokes %q and not %q", v.ID, args[0])}
			}
			return how.finish(ctx, a, statement, c.Revoke)
		}
		if strings.TrimSpace(r.Reason) == "" {
			return &usageError{"--reason is missing"}
		}
		if r.ID = args[0]; r.Group == "" {
			one, err := c.Approval(ctx, r.ID)
			if err != nil {
				return err
			}
			r.Group = one.Group
		}
		if r.Host == "" {
			st, err := c.Status(ctx)
			if err != nil {
				return fmt.Errorf("find out which host it is for: %w; or give --host", err)
			}
			r.Host = st.Host
		}
		if r.RevokedBy == "" {
			r.RevokedBy = caller()
		}
		r.Issued, r.Nonce = approval.At(time.Now()), random()
		statement, err := r.Encode()
		if err != nil {
			return err
		}
		return how.finish(ctx, a, statement, c.Revoke)
	}
}
