package introspect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/approval"
	"github.com/provostd/provost/rules/policy"
)

// Approvals takes signed approvals and revocations, verifies them against the
// trust roots of this host, and seals them in the log of every VM that they are for.
// Which were ever taken stands in the ledger, in rows that are written with the
// entries. Its methods may be called from several goroutines.
type Approvals struct {
	cfg ApprovalsConfig

	mu     sync.Mutex // one submission at a time; guards the rest
	roots  *approval.Roots
	known  map[string]*knownApproval // by id
	nonces map[string]string         // of approvals and revocations: the id
}

// ApprovalsConfig is what Approvals need.
type ApprovalsConfig struct {
	Store    *chain.Store
	Registry *Registry
	HostID   string
	Roots    *approval.Roots
	// Policies are those that judge now.
	Policies func() []*policy.Policy
	Now      func() time.Time
	Log      *slog.Logger
}

// knownApproval is what is held of each approval that was ever taken.
type knownApproval struct {
	vms     []string
	ends    int64 // Unix nanoseconds
	revoked bool
}

// TakenApproval is an approval that was taken, as the ledger keeps it.
type TakenApproval struct {
	Statement  []byte   `json:"statement"`
	Signatures [][]byte `json:"signatures"`
	Signers    []string `json:"signers"`
	Require    int      `json:"require"`
	Submitter  string   `json:"submitter"`
	Taken      int64    `json:"taken"` // Unix nanoseconds
	Revoked    *Revoked `json:"revoked,omitempty"`

	Parsed *approval.Statement `json:"-"`
}

// Revoked says how an approval was ended.
type Revoked struct {
	Statement []byte   `json:"statement"`
	Signers   []string `json:"signers"`
	Submitter string   `json:"submitter"`
	At        int64    `json:"at"` // Unix nanoseconds
	Reason    string   `json:"reason"`
}

const (
	approvalPrefix = "approval/"
	approversKey   = "approvers" // digest of the trust roots sealed last
)

// ErrNoApproval says that no approval has the id asked for.
var ErrNoApproval = errors.New("no such approval")

// NewApprovals reads from the ledger which approvals were taken.
func NewApprovals(cfg ApprovalsConfig) (*Approvals, error) {
	a := &Approvals{cfg: cfg, roots: cfg.Roots, known: map[string]*knownApproval{}, nonces: map[string]string{}}
	for row, err := range cfg.Store.MetaPrefix(approvalPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read approvals from the ledger: %w", err)
		}
		t, err := parseTaken(row.Value)
		if err != nil {
			return nil, err
		}
		if err := a.remember(t); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func parseTaken(b []byte) (*TakenApproval, error) {
	t := &TakenApproval{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("decode approval row: %w: %w", err, record.ErrFatal)
	}
	var err error
	if t.Parsed, err = approval.Parse(t.Statement); err != nil {
		return nil, fmt.Errorf("decode approval row: %w: %w", err, record.ErrFatal)
	}
	return t, nil
}

func (a *Approvals) remember(t *TakenApproval) error {
	s := t.Parsed
	a.known[s.ID] = &knownApproval{vms: s.VMs, ends: s.NotAfter.UnixNano(), revoked: t.Revoked != nil}
	a.nonces[s.Nonce] = s.ID
	if t.Revoked != nil {
		r, err := approval.ParseRevocation(t.Revoked.Statement)
		if err != nil {
			return fmt.Errorf("decode approval row: %w: %w", err, record.ErrFatal)
		}
		a.nonces[r.Nonce] = s.ID
	}
	return nil
}

// now is the time by which approvals are judged: it does not go back behind what
// was sealed in the host log or in one of the domains' logs.
func (a *Approvals) now(machines []Machine) time.Time {
	newest := max(a.cfg.Now().UnixNano(), a.cfg.Store.HostLog().Head().Wall)
	for _, m := range machines {
		newest = max(newest, m.Log.Head().Wall)
	}
	return time.Unix(0, newest)
}

// Submit takes an approval. It returns when that is sealed in the log of every VM
// that it is for; policies see it with the next entry. An error that wraps
// record.ErrReject says what to mend.
func (a *Approvals) Submit(ctx context.Context, statement []byte, signatures [][]byte, submitter string) (*TakenApproval, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.now(a.cfg.Registry.Machines())
	v, err := a.roots.Verify(statement, signatures, at)
	if err != nil {
		return nil, err
	}
	s := v.Statement
	if err := a.admit(v, at); err != nil {
		return nil, fmt.Errorf("approval %s: %w: %w", s.ID, err, record.ErrReject)
	}
	t := &TakenApproval{Statement: statement, Signatures: signatures, Signers: v.Signers, Require: v.Require, Submitter: submitter, Taken: at.UnixNano(), Parsed: s}
	row, err := t.write()
	if err != nil {
		return nil, err
	}
	roots := a.roots.Digest()
	m := &record.Approval{Statement: statement, Signatures: signatures, Signers: v.Signers, Require: uint32(v.Require), ApproversSha256: roots[:], Submitter: submitter}
	err = a.cfg.Registry.sealFor(ctx, s.VMs, true, row, func() (chain.Entry, error) {
		return a.cfg.Store.Draft(record.OriginOperator, record.ClassApprovalLoaded, m)
	})
	if err != nil {
		return nil, fmt.Errorf("approval %s: %w", s.ID, err)
	}
	a.cfg.Log.InfoContext(ctx, "approval taken", "id", s.ID, "group", s.Group, "signers", strings.Join(v.Signers, ","), "submitter", submitter, "not_after", s.NotAfter.String())
	return t, a.remember(t)
}

// admit refuses what is well signed and not for here and now.
func (a *Approvals) admit(v *approval.Verified, at time.Time) error {
	s := v.Statement
	if s.Host != a.cfg.HostID {
		return fmt.Errorf("it is for the host %q, and this is %q", s.Host, a.cfg.HostID)
	}
	if a.known[s.ID] != nil {
		return errors.New("an approval of this id was taken before; no id is taken twice, make a new one")
	}
	if id, used := a.nonces[s.Nonce]; used {
		return fmt.Errorf("its nonce was used by %s; make a new one", id)
	}
	judging := a.cfg.Policies() // once: others may come in force meanwhile
	for _, name := range s.Policies {
		i := slices.IndexFunc(judging, func(p *policy.Policy) bool { return p.Name == name })
		if i < 0 {
			return fmt.Errorf("no policy %q judges here; provost status shows the bundle", name)
		}
		p := judging[i]
		switch {
		case p.Approval == nil:
			return fmt.Errorf("policy %q has no approval block: nothing can be approved for it", name)
		case p.Approval.Group != s.Group:
			return fmt.Errorf("policy %q takes approvals of the group %q, not of %q", name, p.Approval.Group, s.Group)
		case p.Approval.Require > len(v.Signers):
			return fmt.Errorf("policy %q wants %d signers, and %d have signed (%s)", name, p.Approval.Require, len(v.Signers), strings.Join(v.Signers, ", "))
		}
	}
	for _, uuid := range s.VMs {
		n := 0
		for _, k := range a.known {
			if !k.revoked && k.ends > at.UnixNano() && slices.Contains(k.vms, uuid) {
				n++
			}
		}
		if n >= rules.MaxApprovals {
			return fmt.Errorf("VM %s has %d approvals that have not ended, the limit; revoke some, or wait", uuid, n)
		}
	}
	return nil
}

// Revoke ends an approval at once, in the log of every VM that is left of it.
func (a *Approvals) Revoke(ctx context.Context, statement []byte, signatures [][]byte, submitter string) (*TakenApproval, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.now(a.cfg.Registry.Machines())
	v, signers, err := a.roots.VerifyRevocation(statement, signatures, at)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*TakenApproval, error) {
		return nil, fmt.Errorf("revocation of %s: %s: %w", v.ID, fmt.Sprintf(format, args...), record.ErrReject)
	}
	if v.Host != a.cfg.HostID {
		return fail("it is for the host %q, and this is %q", v.Host, a.cfg.HostID)
	}
	t, err := a.get(v.ID)
	if err != nil {
		return nil, err
	}
	if id, used := a.nonces[v.Nonce]; used {
		return fail("its nonce was used by %s; make a new one", id)
	}
	if t.Parsed.Group != v.Group {
		return fail("the approval is of group %q, and the revocation of %q", t.Parsed.Group, v.Group)
	}
	if t.Revoked != nil {
		return fail("it was revoked before, by %s", strings.Join(t.Revoked.Signers, ", "))
	}
	t.Revoked = &Revoked{Statement: statement, Signers: signers, Submitter: submitter, At: at.UnixNano(), Reason: v.Reason}
	row, err := t.write()
	if err != nil {
		return nil, err
	}
	roots := a.roots.Digest()
	m := &record.Revocation{Statement: statement, Signatures: signatures, Signers: signers, ApproversSha256: roots[:], Submitter: submitter}
	err = a.cfg.Registry.sealFor(ctx, t.Parsed.VMs, false, row, func() (chain.Entry, error) {
		return a.cfg.Store.Draft(record.OriginOperator, record.ClassApprovalRevoked, m)
	})
	if err != nil {
		return nil, fmt.Errorf("revocation of %s: %w", v.ID, err)
	}
	a.cfg.Log.InfoContext(ctx, "approval revoked", "id", v.ID, "signers", strings.Join(signers, ","), "submitter", submitter)
	return t, a.remember(t)
}

// Release verifies the word of a second person that holds of a VM may end. It returns
// the digest of the trust roots with the signers.
func (a *Approvals) Release(statement []byte, signatures [][]byte) (*approval.Release, []string, []byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, signers, err := a.roots.VerifyRelease(statement, signatures, a.now(nil))
	if err != nil {
		return nil, nil, nil, err
	}
	sum := a.roots.Digest()
	return r, signers, sum[:], nil
}

func (t *TakenApproval) write() (chain.MetaWrite, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return chain.MetaWrite{}, fmt.Errorf("encode approval %s: %w", t.Parsed.ID, err)
	}
	return chain.MetaWrite{Key: approvalPrefix + t.Parsed.ID, Value: b}, nil
}

func (a *Approvals) get(id string) (*TakenApproval, error) {
	b, ok, err := a.cfg.Store.Meta(approvalPrefix + id)
	if err != nil {
		return nil, fmt.Errorf("read approval %q: %w", id, err)
	}
	if !ok {
		return nil, fmt.Errorf("approval %.80q: %w: %w", id, ErrNoApproval, record.ErrReject)
	}
	return parseTaken(b)
}

// Get returns one approval.
func (a *Approvals) Get(id string) (*TakenApproval, error) { return a.get(id) }

// List returns all approvals that were ever taken, the newest first.
func (a *Approvals) List() ([]*TakenApproval, error) {
	var all []*TakenApproval
	for row, err := range a.cfg.Store.MetaPrefix(approvalPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read approvals from the ledger: %w", err)
		}
		t, err := parseTaken(row.Value)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(x, y *TakenApproval) int {
		return cmp.Or(cmp.Compare(y.Taken, x.Taken), cmp.Compare(x.Parsed.ID, y.Parsed.ID))
	})
	return all, nil
}

// Uses returns how often each approval that has not ended was used on a VM, in the
// shards of its incarnation, as far as that is sealed.
func (a *Approvals) Uses(l *chain.Log) (map[string]uint64, error) {
	b, ok, err := a.cfg.Store.Meta(StateKey(l.ID()))
	if err != nil || !ok {
		return nil, err
	}
	st := &rules.State{}
	if err := st.UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("read state of %s: %w", l.Origin(), err)
	}
	uses := map[string]uint64{}
	for _, u := range st.Approvals() {
		uses[u.ID] = u.Uses
	}
	return uses, nil
}

// State says in a word what becomes of an approval at a moment.
func (t *TakenApproval) State(at time.Time) string {
	switch {
	case t.Revoked != nil:
		return "revoked"
	case t.Parsed.Ended(at.UnixNano()):
		return "ended"
	case !t.Parsed.Valid(at.UnixNano()):
		return "not begun"
	}
	return "valid"
}

// SealRoots seals the trust roots in the host log, where they differ from those
// that were sealed last. It comes before the first approval is verified with them.
func (a *Approvals) SealRoots(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sealRoots(ctx, a.roots)
}

// Replace has other trust roots hold from now on. Approvals that were taken stay.
func (a *Approvals) Replace(ctx context.Context, roots *approval.Roots) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.sealRoots(ctx, roots); err != nil {
		return err
	}
	a.roots = roots
	return nil
}

func (a *Approvals) sealRoots(ctx context.Context, roots *approval.Roots) error {
	sum := roots.Digest()
	last, ok, err := a.cfg.Store.Meta(approversKey)
	if err != nil {
		return fmt.Errorf("seal approvers: %w", err)
	}
	if string(last) == string(sum[:]) || !ok && len(roots.Groups()) == 0 {
		return nil
	}
	e, err := a.cfg.Store.Draft(record.OriginHost, record.ClassApprovalApprovers, &record.Approvers{Text: roots.Text(), Sha256: sum[:]})
	if err != nil {
		return fmt.Errorf("seal approvers: %w", err)
	}
	_, err = a.cfg.Store.Append(ctx, chain.Batch{Log: a.cfg.Store.HostLog(), Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{{Key: approversKey, Value: sum[:]}}})
	if err != nil {
		return fmt.Errorf("seal approvers: %w", err)
	}
	return nil
}

// sealFor seals an entry in the log of each domain, all in one commit with a row.
// Where all of them are wanted, one that is not here is an error; else those that are
// gone are left out, and where none is left, it stands in the host log.
func (r *Registry) sealFor(ctx context.Context, uuids []string, all bool, row chain.MetaWrite, draft func() (chain.Entry, error)) error {
	// Whoever asked may hang up: what was begun is carried through.
	ctx = context.WithoutCancel(ctx)
	r.observing.Lock() // no shard may end between here and the commit
	defer r.observing.Unlock()
	var logs []*chain.Log
	for _, uuid := range uuids {
		id, err := domain.ParseUUID(uuid)
		if err != nil {
			return err
		}
		m := r.get(id)
		if m == nil || m.Ended {
			if all {
				return fmt.Errorf("VM %s is not on this host; provost domain list shows those that are: %w", uuid, record.ErrReject)
			}
			continue
		}
		if m, err = r.reopen(ctx, m); err != nil {
			return err
		}
		logs = append(logs, m.log)
	}
	if len(logs) == 0 {
		logs = []*chain.Log{r.store.HostLog()}
	}
	batches := make([]chain.Batch, 0, len(logs))
	for _, l := range logs {
		e, err := draft()
		if err != nil {
			return err
		}
		batches = append(batches, chain.Batch{Log: l, Entries: []chain.Entry{e}})
	}
	batches[0].Meta = []chain.MetaWrite{row}
	_, err := r.store.AppendAll(ctx, batches)
	return err
}
