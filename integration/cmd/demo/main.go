// Command demo shows Provost's main job from end to end on this machine: a
// libvirtd and a domain of its own, a real kernel with our agent, policies that
// alert and pause, and evidence that is verified and found tampered with.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/integration/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	keep := fs.Bool("keep", false, "leave everything running")
	end := fs.Bool("end", false, "only end what an earlier demo has left running")
	dir := fs.String("dir", "/run/provost-demo", "directory of all state; at most 40 bytes")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(stderr, "demo: it starts a libvirtd and its domains: run it as root")
		return 1
	}
	d := &demo{out: stdout, began: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if *end {
		if err := lab.Clear(*dir); err != nil {
			fmt.Fprintln(stderr, "demo:", err)
			return 1
		}
		return 0
	}
	err := d.show(ctx, *dir, *keep)
	if d.lab != nil && (!*keep || err != nil) {
		err = errors.Join(err, d.lab.Close())
	}
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 1
	}
	return 0
}

// demo is one showing.
type demo struct {
	out     io.Writer
	began   time.Time
	lab     *lab.Lab
	clock   lab.Clock
	summary []string
}

func (d *demo) say(format string, a ...any) {
	fmt.Fprintf(d.out, "[%5.1fs] %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, a...))
}

func (d *demo) title(format string, a ...any) {
	fmt.Fprintf(d.out, "\n== %s\n", fmt.Sprintf(format, a...))
}

func (d *demo) sum(format string, a ...any) {
	d.summary = append(d.summary, fmt.Sprintf(format, a...))
}

func (d *demo) show(ctx context.Context, dir string, keep bool) error {
	root, err := harness.ModuleRoot()
	if err != nil {
		return err
	}
	d.title("A host, a domain, a daemon")
	d.lab, err = lab.New(ctx, lab.Config{Dir: dir, Policies: filepath.Join(root, "examples", "policies", "baseline"), Out: d.say})
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.boot, d.activity, d.malware, d.evidence, d.metrics} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.title("Summary")
	for _, s := range d.summary {
		fmt.Fprintf(d.out, "  ok  %s\n", s)
	}
	if keep {
		return d.keep()
	}
	return nil
}

// boot shows how a domain gets its chain.
func (d *demo) boot(ctx context.Context) error {
	d.say("starting provostd with the policies of examples/policies/baseline")
	if err := d.lab.StartDaemon(ctx); err != nil {
		return err
	}
	out, err := d.provost(ctx, "domain", "enroll", d.lab.Domain)
	if err != nil {
		return err
	}
	d.say("provost domain enroll: %s", strings.TrimSpace(out))
	d.say("booting %s; its agent loads the eBPF probe", d.lab.Domain)
	hooks, err := d.lab.Boot(ctx)
	if err != nil {
		return err
	}
	m := hooks.Msg.(*record.Hooks)
	d.title("1. The chain of %s begins", d.lab.Domain)
	if err := d.tail(ctx, "--class", "log.genesis,policy.loaded,vm.*,agent.enrolled,agent.hooks"); err != nil {
		return err
	}
	d.sum("genesis and lifecycle sealed; guest agent enrolled, probe in %s mode on Linux %s", m.Mode, m.Kernel)
	d.clock, err = d.lab.ReadClock(ctx)
	return err
}

// activity shows guest events on their way into the chain.
func (d *demo) activity(ctx context.Context) error {
	d.title("2. What happens in the guest is signed there and sealed here")
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := d.lab.Guest.Output(ctx, lab.Activity); err != nil {
		return err
	}
	wanted := []struct {
		what  string
		match func(*lab.Entry) bool
	}{
		{"a program started", lab.Exec("/bin/busybox", "uname")},
		{"a file written under /etc", lab.File(record.ClassFileCreate, "/etc/passwd.new")},
		{"and renamed over another", lab.Rename("/etc/passwd")},
		{"an outgoing connection", lab.Connect(7777)},
	}
	for _, w := range wanted {
		e, err := d.lab.Wait(wait, w.what, w.match)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "  %-26s leaf %-4d %s\n", w.what, e.Leaf.Index, record.Text(e.Leaf.Header.Class, e.Msg))
	}
	v, err := d.lab.Wait(wait, "the verdict on /etc/passwd", lab.Verdict("etc_changed"))
	if err != nil {
		return err
	}
	o, err := d.lab.Wait(wait, "the outcome of the alert", lab.Outcome("etc_changed", "alert"))
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  %-26s leaf %-4d %s\n", "policy verdict", v.Leaf.Index, record.Text(v.Leaf.Header.Class, v.Msg))
	fmt.Fprintf(d.out, "  %-26s leaf %-4d %s\n", "outcome", o.Leaf.Index, record.Text(o.Leaf.Header.Class, o.Msg))
	d.sum("exec, write, rename over /etc/passwd and connect arrived signed, with process and parent")
	d.sum("policy etc_changed alerted; verdict is leaf %d, its outcome leaf %d", v.Leaf.Index, o.Leaf.Index)
	return nil
}

// malware shows an action that stops a domain.
func (d *demo) malware(ctx context.Context) error {
	d.title("3. A listed program starts: the domain is paused")
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := d.lab.Guest.Output(ctx, lab.Malware); err != nil {
		return err
	}
	const policy = "known_malicious_process"
	exec, err := d.lab.Wait(wait, "the listed program", lab.Exec("/tmp/xmrig"))
	if err != nil {
		return err
	}
	v, err := d.lab.Wait(wait, "the verdict", lab.Verdict(policy))
	if err != nil {
		return err
	}
	o, err := d.lab.Wait(wait, "the outcome", lab.Outcome(policy, "pause"))
	if err != nil {
		return err
	}
	if err := d.lab.Guest.WaitState(wait, "paused"); err != nil {
		return err
	}
	for _, e := range []*lab.Entry{exec, v, o} {
		fmt.Fprintf(d.out, "  leaf %-4d %-16s %s\n", e.Leaf.Index, e.Leaf.Header.Class, record.Text(e.Leaf.Header.Class, e.Msg))
	}
	fmt.Fprintf(d.out, "  virsh domstate %s: paused\n", d.lab.Domain)
	at := d.clock.Host(exec.Leaf.Header.Time)
	ms := func(ns int64) float64 { return float64(time.Unix(0, ns).Sub(at)) / 1e6 }
	paused := o.Msg.(*record.Outcome).Ended
	fmt.Fprintf(d.out, "  from the event in the guest: sealed after %.1f ms, verdict sealed after %.1f ms, domain paused after %.1f ms (clocks agree within %.1f ms)\n",
		ms(exec.Leaf.Wall), ms(v.Leaf.Wall), ms(paused), float64(d.clock.Error)/1e6)
	d.sum("policy %s paused the domain %.1f ms after the program started in the guest (± %.1f ms)", policy, ms(paused), float64(d.clock.Error)/1e6)
	return nil
}

// evidence shows that anybody can check the chain, and that it shows tampering.
func (d *demo) evidence(ctx context.Context) error {
	d.title("4. Evidence: verified with the host's public key alone")
	bundle := filepath.Join(d.lab.Dir, "evidence.zip")
	key := filepath.Join(d.lab.Dir, "state", "keys", "host.vkey")
	out, err := d.provost(ctx, "export", "-o", bundle, d.lab.Domain)
	if err != nil {
		return err
	}
	d.say("provost export: %s", strings.TrimSpace(out))
	out, err = d.lab.Provost(ctx, "verify", "--key", key, bundle)
	if err != nil {
		return fmt.Errorf("the bundle does not verify: %w: %s", err, out)
	}
	fmt.Fprint(d.out, indent(out, 12))
	v, err := d.lab.Wait(ctx, "the verdict", lab.Verdict("known_malicious_process"))
	if err != nil {
		return err
	}
	index := v.Leaf.Index
	if err := tamper(bundle, bundle+".tampered", v); err != nil {
		return err
	}
	d.say("flipping one byte of leaf %d in a copy", index)
	out, err = d.lab.Provost(ctx, "verify", "--key", key, bundle+".tampered")
	if err == nil {
		return errors.New("the tampered bundle verifies")
	}
	if !strings.Contains(out, fmt.Sprintf("entry %d", index)) {
		return fmt.Errorf("the tampered entry %d is not named: %s", index, out)
	}
	fmt.Fprint(d.out, indent(out, 6))
	d.sum("the exported bundle verifies offline; with one byte changed, entry %d is named", index)
	return nil
}

// tamper copies a bundle and flips a byte in one leaf: evidence is stored, not
// compressed, so the leaf's bytes can be found.
func tamper(from, to string, e *lab.Entry) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	leaf := e.Leaf.AppendBinary(nil)
	i := bytes.Index(b, leaf)
	if i < 0 {
		return fmt.Errorf("leaf %d is not in %s", e.Leaf.Index, from)
	}
	b[i+20] ^= 1 // its time
	return os.WriteFile(to, b, 0o600)
}

// metrics shows the trigger as an operator's monitoring sees it.
func (d *demo) metrics(ctx context.Context) error {
	d.title("5. Metrics")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.lab.Listen+"/metrics", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	found := false
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "provost_policy_") {
			fmt.Fprint(d.out, "  ", line)
			found = found || strings.Contains(line, `action="pause"`) && strings.Contains(line, `policy="known_malicious_process"`)
		}
	}
	if !found {
		return errors.New("/metrics does not show the pause")
	}
	d.sum("http://%s/metrics counts triggers and actions by policy", d.lab.Listen)
	return nil
}

// keep leaves everything running and says how to look around.
func (d *demo) keep() error {
	if err := d.lab.Leave(); err != nil {
		return err
	}
	d.title("Everything is left running")
	fmt.Fprintf(d.out, `  bin/provost status --socket %[1]s
  bin/provost tail -f --socket %[1]s %[2]s
  virsh -c '%[3]s' domstate %[2]s
  virsh -c '%[3]s' resume %[2]s
  curl http://%[4]s/metrics
  curl http://%[4]s/logs/
  less %[5]s
  end it with: make demo-end
`, d.lab.Socket(), d.lab.Domain, d.lab.Host.URI(), d.lab.Listen, d.lab.DaemonLog())
	return nil
}

func (d *demo) provost(ctx context.Context, args ...string) (string, error) {
	return d.lab.Provost(ctx, append(args, "--socket", d.lab.Socket())...)
}

func (d *demo) tail(ctx context.Context, args ...string) error {
	out, err := d.provost(ctx, append([]string{"tail", d.lab.Domain}, args...)...)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(d.out, indent(out, 20))
	return err
}

// indent returns the first lines of a text, set in.
func indent(s string, most int) string {
	var b strings.Builder
	n := 0
	for line := range strings.Lines(s) {
		if n++; n > most {
			fmt.Fprintf(&b, "  ...\n")
			break
		}
		if len(line) > 240 {
			line = line[:240] + "...\n"
		}
		b.WriteString("  " + line)
	}
	return b.String()
}
