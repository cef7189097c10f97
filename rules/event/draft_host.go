package event

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
)

func (d *Draft) domain() *record.VM { return part(&d.event().Vm) }
func (d *Draft) hypervisor() *record.Hypervisor {
	return part(&d.domain().Hypervisor)
}
func (d *Draft) finding() *record.AgentState   { return d.payload.(*record.AgentState) }
func (d *Draft) enrolled() *record.Enrolled    { return d.payload.(*record.Enrolled) }
func (d *Draft) hooks() *record.Hooks          { return d.payload.(*record.Hooks) }
func (d *Draft) lost() *record.Lost            { return d.payload.(*record.Lost) }
func (d *Draft) verdict() *record.Verdict      { return d.payload.(*record.Verdict) }
func (d *Draft) outcome() *record.Outcome      { return d.payload.(*record.Outcome) }
func (d *Draft) command() *record.AgentCommand { return d.payload.(*record.AgentCommand) }

func hostSetters() map[Field]setter {
	return map[Field]setter{
		VMUUID:            setDomainText(func(v *record.VM) *string { return &v.Uuid }),
		VMName:            setDomainText(func(v *record.VM) *string { return &v.Name }),
		VMState:           setDomainText(func(v *record.VM) *string { return &v.State }),
		LibvirtDetail:     setWord(func(d *Draft) *string { return &d.domain().Detail }),
		LibvirtConnection: setWord(func(d *Draft) *string { return &d.domain().Connection }),
		LibvirtSource:     setWord(func(d *Draft) *string { return &d.domain().Source }),
		LibvirtEventID:    setSmall(func(d *Draft) *int32 { return &d.domain().LibvirtEvent }),
		LibvirtDetailID:   setSmall(func(d *Draft) *int32 { return &d.domain().LibvirtDetail }),
		LibvirtDomainID: setSigned(func(d *Draft) *int64 {
			switch p := d.payload.(type) {
			case *record.Epoch:
				return &p.LibvirtId
			case *record.Event:
				return &d.domain().LibvirtId
			}
			return new(int64) // Entry finds that it is not carried
		}, 1),

		LibvirtWord:       setWord(func(d *Draft) *string { return &d.hypervisor().Word }),
		LibvirtDevice:     setWord(func(d *Draft) *string { return &d.hypervisor().Device }),
		LibvirtPath:       setWord(func(d *Draft) *string { return &d.hypervisor().Path }),
		LibvirtAddress:    setWord(func(d *Draft) *string { return &d.hypervisor().Address }),
		LibvirtOld:        setWord(func(d *Draft) *string { return &d.hypervisor().OldValue }),
		LibvirtNew:        setWord(func(d *Draft) *string { return &d.hypervisor().NewValue }),
		LibvirtStatus:     setWord(func(d *Draft) *string { return &d.hypervisor().Status }),
		LibvirtSide:       setWord(func(d *Draft) *string { return &d.hypervisor().Side }),
		LibvirtLearned:    setWord(func(d *Draft) *string { return &d.hypervisor().Learned }),
		LibvirtClaimedBy:  setWord(func(d *Draft) *string { return &part(&d.hypervisor().ClaimedBy).User }),
		LibvirtRole:       setWord(func(d *Draft) *string { return &part(&d.hypervisor().Image).Role }),
		LibvirtHashSHA256: setSHA256(func(d *Draft) *[]byte { return &part(&d.hypervisor().Image).Sha256 }),
		LibvirtSize:       setWide(func(d *Draft) *uint64 { return &part(&d.hypervisor().Image).Size }),
		LibvirtRepeats:    setWide(func(d *Draft) *uint64 { return &d.hypervisor().Repeats }),
		LibvirtOmitted:    setWide(func(d *Draft) *uint64 { return &d.hypervisor().Omitted }),
		LibvirtNumbers: func(d *Draft, v any) error {
			d.hypervisor().Numbers = slices.Clone(v.([]string))
			return nil
		},
		LibvirtChanged: func(d *Draft, v any) error {
			for _, p := range v.([]string) {
				d.hypervisor().Changes = append(d.hypervisor().Changes, &record.ConfigChange{Path: p})
			}
			return nil
		},

		AgentSession: setWide(func(d *Draft) *uint64 {
			switch p := d.payload.(type) {
			case *record.Enrolled:
				return &p.Session
			case *record.AgentCommand:
				return &p.Session
			case *record.AgentResult:
				return &p.Session
			}
			return &d.finding().Session
		}),
		AgentCount:            setWide(func(d *Draft) *uint64 { return &d.finding().Count }),
		AgentSilentSeconds:    setSigned(func(d *Draft) *int64 { return &d.finding().Silent }, 1e9),
		AgentVersion:          setWord(func(d *Draft) *string { return &d.enrolled().AgentVersion }),
		AgentKey:              setHex(func(d *Draft) *[]byte { return &d.enrolled().Key }),
		AgentAttestationLevel: setNarrow(func(d *Draft) *uint32 { return &d.enrolled().AttestationLevel }),
		AgentResumed:          setYes(func(d *Draft) *bool { return &d.enrolled().Resumed }),
		AgentMode:             setWord(func(d *Draft) *string { return &d.hooks().Mode }),
		AgentKernel:           setWord(func(d *Draft) *string { return &d.hooks().Kernel }),
		AgentUncovered: func(d *Draft, v any) error {
			for _, name := range v.([]string) {
				c, err := record.ParseClass(name)
				if err != nil {
					return fmt.Errorf("has event types, and %q is none", name)
				}
				d.hooks().Hooks = append(d.hooks().Hooks, &record.Hook{Class: uint32(c)})
			}
			return nil
		},
		AgentAuthorised: setYes(func(d *Draft) *bool { return &d.payload.(*record.AgentStopped).Authorised }),
		CommandID: setHex(func(d *Draft) *[]byte {
			switch p := d.payload.(type) {
			case *record.AgentCommand:
				return &p.Id
			case *record.AgentResult:
				return &p.Id
			}
			return &d.payload.(*record.AgentStopped).Command
		}),
		CommandKind:      setWord(func(d *Draft) *string { return &d.command().Kind }),
		CommandRequester: setWord(func(d *Draft) *string { return &d.command().Requester }),
		CommandStatus:    setNarrow(func(d *Draft) *uint32 { return &d.payload.(*record.AgentResult).Status }),

		// Counts, reasons and classes are put together by completeLost.
		LostAuthor:  setWord(func(d *Draft) *string { return &d.lost().Author }),
		LostCount:   func(*Draft, any) error { return nil },
		LostReasons: func(_ *Draft, v any) error { return lossReasons(v.([]string)) },
		LostClasses: func(_ *Draft, v any) error {
			for _, name := range v.([]string) {
				if _, err := record.ParseClass(name); err != nil {
					return fmt.Errorf("has event types, and %q is none", name)
				}
			}
			return nil
		},

		GapSeconds: setSigned(func(d *Draft) *int64 { return &d.payload.(*record.Gap).To }, 1e9),
		GapChanges: func(d *Draft, v any) error {
			d.payload.(*record.Gap).Changes = slices.Clone(v.([]string))
			return nil
		},

		PolicyName: setWord(func(d *Draft) *string {
			switch p := d.payload.(type) {
			case *record.Outcome:
				return &p.Policy
			case *record.Held:
				return &hold(p).Policy
			case *record.BundleActivation:
				return &p.Name
			}
			return &d.verdict().Policy
		}),
		PolicySeverity:  setWord(func(d *Draft) *string { return &d.verdict().Severity }),
		PolicyMode:      setWord(func(d *Draft) *string { return &d.verdict().Mode }),
		PolicyCause:     setWord(func(d *Draft) *string { return &d.verdict().CauseClass }),
		PolicyWouldHave: setYes(func(d *Draft) *bool { return &d.verdict().WouldHave }),
		PolicyLimited:   setWord(func(d *Draft) *string { return &d.verdict().Limited }),
		PolicyLimitMax:  setWide(func(d *Draft) *uint64 { return &d.verdict().LimitMax }),
		ApprovalID:      setStated(func(s *signedStatement) *string { return &s.ID }, func(a *record.VerdictApproval) *string { return &a.Id }),
		ApprovalGroup:   setStated(func(s *signedStatement) *string { return &s.Group }, func(a *record.VerdictApproval) *string { return &a.Group }),
		ApprovalState:   setWord(func(d *Draft) *string { return &part(&d.verdict().Approval).State }),
		ApprovalUses:    setWide(func(d *Draft) *uint64 { return &part(&d.verdict().Approval).Uses }),
		ApprovalMaxUses: setWide(func(d *Draft) *uint64 { return &part(&d.verdict().Approval).MaxUses }),
		ApprovalSigners: func(d *Draft, v any) error {
			_, signers, _ := d.signed()
			*signers = slices.Clone(v.([]string))
			return nil
		},
		ApprovalSubmitter: setWord(func(d *Draft) *string { _, _, s := d.signed(); return s }),
		PolicyAction: setWord(func(d *Draft) *string {
			if p, ok := d.payload.(*record.Held); ok {
				return &hold(p).Action
			}
			return &d.outcome().Kind
		}),
		PolicyRequester: setWord(func(d *Draft) *string { return &d.payload.(*record.Held).Requester }),
		PolicyResult:    setWord(func(d *Draft) *string { return &d.outcome().Result }),
	}
}

// signed returns what is in an entry that somebody has signed.
func (d *Draft) signed() (statement *[]byte, signers *[]string, submitter *string) {
	if r, ok := d.payload.(*record.Revocation); ok {
		return &r.Statement, &r.Signers, &r.Submitter
	}
	a := d.payload.(*record.Approval)
	return &a.Statement, &a.Signers, &a.Submitter
}

// setStated says a part of what was signed, or of what a verdict says of it. The
// statement is one for reading only: it loads and revokes nothing.
func setStated(at func(*signedStatement) *string, of func(*record.VerdictApproval) *string) setter {
	return func(d *Draft, v any) error {
		if m, ok := d.payload.(*record.Verdict); ok {
			*of(part(&m.Approval)) = v.(string)
			return nil
		}
		statement, _, _ := d.signed()
		var s signedStatement
		if len(*statement) > 0 {
			if err := json.Unmarshal(*statement, &s); err != nil {
				return err
			}
		}
		*at(&s) = v.(string)
		var err error
		*statement, err = json.Marshal(s)
		return err
	}
}

// setDomainText says a fact of the domain, which only the host's own events
// carry: followers of the log learn it from them.
func setDomainText(at func(*record.VM) *string) setter {
	return func(d *Draft, v any) error {
		if p, ok := d.payload.(*record.Event); ok && SetOf(d.leaf.Header.Class).Intersects(setVM) {
			*at(part(&p.Vm)) = v.(string)
			return nil
		}
		return fmt.Errorf("follows from the vm of the test: say it there")
	}
}

const lossPrefix = "LOSS_REASON_"

func lossReasons(list []string) error {
	for _, s := range list {
		if _, ok := record.LossReason_value[lossPrefix+strings.ToUpper(s)]; !ok || strings.ToLower(s) != s {
			var all []string
			for _, name := range slices.Sorted(maps.Keys(record.LossReason_value)) {
				all = append(all, strings.ToLower(strings.TrimPrefix(name, lossPrefix)))
			}
			return fmt.Errorf("has no %q; it has: %s", s, strings.Join(all, ", "))
		}
	}
	return nil
}

// complete fills in what an author always says, from what was said.
func (d *Draft) complete() {
	switch p := d.payload.(type) {
	case *record.Event:
		if p.Process != nil {
			d.completeIDs(p.Process.Credentials, userIDs)
			if p.Process.Inode == 0 && p.Process.Device != 0 {
				p.Process.Inode = 1 // it was examined
			}
		}
		d.completeIDs(p.CredentialsBefore, beforeIDs)
		if f := p.File; f != nil && f.Inode == 0 && slices.ContainsFunc(examined[:], d.has) {
			f.Inode = 1
		}
	case *record.Lost:
		d.completeLost(p)
	}
}

// examined are the fields that only a file has which was looked at.
var examined = [...]Field{FileDevice, FileMode, FileModeBefore, FileModeExecutable, FileSize, FileSizeBefore, FileUID, FileGID, FileRdev, FileLinks}

// completeLost spreads reasons and classes over as many counts as they need,
// and puts the whole number into the first.
func (d *Draft) completeLost(p *record.Lost) {
	p.Counts = nil
	var reasons, classes []string
	var total uint64
	for _, s := range d.said {
		switch s.field {
		case LostCount:
			total = s.value.(uint64)
		case LostReasons:
			reasons = s.value.([]string)
		case LostClasses:
			classes = s.value.([]string)
		}
	}
	for i := range max(len(reasons), len(classes), 1) {
		c := &record.LostCount{}
		if len(reasons) > 0 {
			c.Reason = record.LossReason(record.LossReason_value[lossPrefix+strings.ToUpper(reasons[min(i, len(reasons)-1)])])
		}
		if len(classes) > 0 {
			k, _ := record.ParseClass(classes[min(i, len(classes)-1)])
			c.Class = uint32(k)
		}
		if i == 0 {
			c.Count = total
		}
		p.Counts = append(p.Counts, c)
	}
}

// hold is the first of the actions that an entry about such as last names.
func hold(p *record.Held) *record.Hold {
	if len(p.Holds) == 0 {
		p.Holds = []*record.Hold{{}}
	}
	return p.Holds[0]
}
