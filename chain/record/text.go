package record

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text says in one line what a record tells, for people. Bytes that come from
// a guest are quoted where they hold anything but printable characters, so
// that no guest can write to an operator's terminal.
func Text(c Class, m Message) string {
	var b strings.Builder
	switch m := m.(type) {
	case *Event:
		eventText(&b, c, m)
	case *Genesis:
		fmt.Fprintf(&b, "log %s begins (%s)", m.Origin, m.Cause)
		if m.DomainUuid != "" {
			fmt.Fprintf(&b, ", domain %s %s, incarnation %d, %d disk layers, %d bytes of XML",
				Word([]byte(m.DomainName)), m.DomainUuid, m.Incarnation, len(m.Disks), len(m.DomainXml))
		}
		if m.PreviousOrigin != "" {
			fmt.Fprintf(&b, ", continues %s", m.PreviousOrigin)
		}
	case *Erased:
		if m.EarlierShard > 0 {
			fmt.Fprintf(&b, "records of shard %d were erased, and what is remembered and quoted of them here; ", m.EarlierShard)
		}
		fmt.Fprintf(&b, "payloads of %d records erased (%s), asked for by %s", m.Records, Printable([]byte(m.Reason)), Printable([]byte(m.Authority)))
		n := 0
		for _, v := range m.Verdicts {
			n += len(v.Entries)
		}
		if n > 0 {
			fmt.Fprintf(&b, ", and of %d verdicts that quoted them", n)
		}
	case *Pruned:
		fmt.Fprintf(&b, "%s of entries %d to %d pruned (%s), by %s", Printable([]byte(m.What)), m.Range.GetFirst(), m.Range.GetLast(), Printable([]byte(m.Rule)), Printable([]byte(m.Authority)))
	case *Closed:
		fmt.Fprintf(&b, "log closed (%s)", Printable([]byte(m.Reason)))
		if m.NextOrigin != "" {
			fmt.Fprintf(&b, ", %s goes on", Printable([]byte(m.NextOrigin)))
		}
	case *Dropped:
		fmt.Fprintf(&b, "log %s with %d entries dropped (%s), asked for by %s; archive of %d bytes, SHA-256 %x", m.Origin, m.Size, Printable([]byte(m.Reason)), Printable([]byte(m.Requester)), m.ArchiveBytes, m.ArchiveSha256)
	case *Epoch:
		epochText(&b, m)
	case *Handover:
		handoverText(&b, m)
	case *Enrolled:
		verb := "enrolled"
		if m.Resumed {
			verb = "resumed"
		}
		fmt.Fprintf(&b, "guest agent %s %s: key %x, session %x, attestation level %d",
			Printable([]byte(m.AgentVersion)), verb, m.Key, m.Session, m.AttestationLevel)
	case *Hooks:
		covered := 0
		for _, h := range m.Hooks {
			if h.Name != "" {
				covered++
			}
		}
		fmt.Fprintf(&b, "probe in %s mode on %s %s: %d of %d classes covered", Printable([]byte(m.Mode)),
			Printable([]byte(m.Os)), Printable([]byte(m.Kernel)), covered, len(m.Hooks))
		if len(m.Commands) > 0 {
			fmt.Fprintf(&b, "; the host may have it do: %s", Printable([]byte(strings.Join(m.Commands, ", "))))
		}
	case *Frame:
		fmt.Fprintf(&b, "signed statement over the %d records before", m.Count)
	case *Lost:
		var n uint64
		for _, l := range m.Counts {
			n += l.Count
		}
		fmt.Fprintf(&b, "%d events lost (%s) %s", n, Printable([]byte(m.Author)), Printable([]byte(m.Detail)))
	case *AgentState:
		b.WriteString(Printable([]byte(m.Reason)))
		if m.Count > 0 {
			fmt.Fprintf(&b, " (%d)", m.Count)
		}
	case *AgentStopped:
		b.WriteString("guest agent stopped")
		if m.Authorised {
			fmt.Fprintf(&b, " by command %x of the host", m.Command)
		}
		if m.Reason != "" {
			b.WriteString(": " + Printable([]byte(m.Reason)))
		}
	case *AgentCommand:
		fmt.Fprintf(&b, "command %s %x for session %x asked by %s: %s", Printable([]byte(m.Kind)), m.Id, m.Session,
			Printable([]byte(m.Requester)), Printable([]byte(m.Reason)))
	case *AgentResult:
		fmt.Fprintf(&b, "command %x in session %x: ", m.Id, m.Session)
		if m.Status == 0 {
			b.WriteString("done")
		} else {
			fmt.Fprintf(&b, "status %d", m.Status)
		}
		if m.Detail != "" {
			b.WriteString(", " + Printable([]byte(m.Detail)))
		}
	case *VMCheckpoint:
		fmt.Fprintf(&b, "checkpoint of %s at size %d", m.Origin, m.Size)
	case *KeyCertificate:
		fmt.Fprintf(&b, "key %d %x signs %s*", m.Number, m.PublicKey, m.OriginPrefix)
		if m.Cause != "" {
			fmt.Fprintf(&b, " from now on (%s)", Printable([]byte(m.Cause)))
		}
	case *WitnessState:
		witnessText(&b, m)
	case *Disclosed:
		disclosedText(&b, m)
	case *Daemon:
		fmt.Fprintf(&b, "daemon %s, version %s, pid %d", m.What, m.Version, m.Pid)
	case *Backup:
		fmt.Fprintf(&b, "backup to %s asked for by %s", Printable([]byte(m.Directory)), Printable([]byte(m.Requester)))
		if m.PayloadKeys {
			b.WriteString(", with the keys of the payloads")
		}
	case *Restore:
		restoreText(&b, m)
	case *Damage:
		damageText(&b, m)
	case *Gap:
		fmt.Fprintf(&b, "blind for %.3f s: %s; %s", float64(m.To-m.From)/1e9, m.Cause, strings.Join(m.Changes, "; "))
	case *BundleActivation:
		fmt.Fprintf(&b, "bundle %s %s with %d policies, digest %x", m.Name, m.Version, len(m.Policies), m.Digest)
	case *PolicyCarried:
		carriedText(&b, m)
	case *Approval, *Revocation, *Approvers:
		approvalText(&b, m)
	case *Verdict:
		if m.Approval != nil && (c == ClassApprovalUsed || c == ClassApprovalUsedLate || c == ClassApprovalExpired) {
			useText(&b, m)
			break
		}
		verdictText(&b, m)
	case *Outcome:
		outcomeText(&b, m)
	case *AlertResult:
		alertText(&b, m)
	case *Held:
		heldText(&b, c, m)
	case *Snapshotted:
		snapshotText(&b, m)
	case *SnapshotRemoved:
		removedText(&b, m)
	default:
		fmt.Fprintf(&b, "%T", m)
	}
	return strings.TrimSpace(b.String())
}

func processText(p *Process) string {
	s := processName(p)
	if p.Credentials != nil {
		s += " uid " + strconv.FormatUint(uint64(p.Credentials.Uid), 10)
	}
	return s
}

func processName(p *Process) string {
	name := p.Executable
	if len(name) == 0 {
		name = p.Name
	}
	return Word(name) + "(" + strconv.FormatUint(uint64(p.Pid), 10) + ")"
}

// ipText writes an address in its usual form, or a mark where it is none.
func ipText(ip []byte) string {
	if a, ok := netip.AddrFromSlice(ip); ok {
		return a.Unmap().String()
	}
	return "?"
}

func address(ip []byte, port uint32) string {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || port > 65535 {
		return "?"
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(port)).String()
}

// Printable returns b as it is where every character is printable, and quoted
// as a Go string where one is not.
func Printable(b []byte) string {
	if utf8.Valid(b) {
		plain := true
		for _, r := range string(b) {
			if !unicode.IsPrint(r) {
				plain = false
				break
			}
		}
		if plain {
			return string(b)
		}
	}
	return strconv.Quote(string(b))
}

// Word is Printable for what stands among the other words of a line: a name
// that a guest has chosen is quoted as well where it holds a blank or a sign
// that the line itself is made of, so that no file can be named like the rest
// of another event.
func Word(b []byte) string {
	if bytes.ContainsAny(b, " \"'`()[]<>{}") {
		return strconv.Quote(string(b))
	}
	return Printable(b)
}
