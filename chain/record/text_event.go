package record

import (
	"fmt"
	"strconv"
	"strings"
)

// eventText says what happened, who did it and why. Each part writes one
// blank behind itself.
func eventText(b *strings.Builder, c Class, e *Event) {
	partsText(b, c, e)
	if e.File != nil {
		fileText(b, c, e)
	}
	if e.Network != nil {
		networkText(b, e.Network)
	}
	if v := e.Vm; v != nil {
		if v.Name != "" || v.State != "" { // not in the host log
			fmt.Fprintf(b, "%s is %s", Word([]byte(v.Name)), Word([]byte(v.State)))
		}
		if v.Detail != "" && v.Detail != v.Hypervisor.GetStatus() { // which comes
			b.WriteString(" (" + Word([]byte(v.Detail)) + ")")
		}
		b.WriteByte(' ')
		if v.Hypervisor != nil {
			hypervisorText(b, v.Hypervisor)
		}
	}
	if e.Object != nil {
		b.WriteString("of " + processText(e.Object) + " ")
	}
	if e.Process != nil {
		actorText(b, c, e)
	}
	if x := e.Exit; x != nil {
		fmt.Fprintf(b, " exit %d", x.Code)
		if x.Signal != 0 {
			fmt.Fprintf(b, " signal %d", x.Signal)
		}
		if x.PeakMemory != 0 {
			fmt.Fprintf(b, " peak %d bytes", x.PeakMemory)
		}
	}
	if e.Parent != nil && e.Parent.Pid != 0 {
		b.WriteString(" < " + processText(e.Parent))
	}
	if e.Reason != "" {
		b.WriteString(" " + Word([]byte(e.Reason)))
	}
	if e.Count > 1 {
		fmt.Fprintf(b, " (%d times)", e.Count)
	}
	if e.Flags&EventRefused != 0 {
		b.WriteString(" (refused)")
	}
}

// actorText names the process and, of an exec, its arguments.
func actorText(b *strings.Builder, c Class, e *Event) {
	p := e.Process
	if c != ClassProcessExec && c != ClassProcessFork && c != ClassProcessExit {
		b.WriteString("by ")
	}
	if was := e.CredentialsBefore; was != nil {
		b.WriteString(processName(p) + " " + idText(was))
		if p.Credentials != nil {
			b.WriteString(" -> " + idText(p.Credentials))
		}
		return
	}
	b.WriteString(processText(p))
	if c == ClassProcessExec && len(p.Args) > 0 {
		args := make([]string, len(p.Args))
		for i, a := range p.Args {
			args[i] = Word(a)
			if len(a) == 0 {
				args[i] = `""`
			}
		}
		b.WriteString(" [" + strings.Join(args, " ") + "]")
	}
	if c == ClassProcessDigest && len(p.Sha256) > 0 {
		fmt.Fprintf(b, " sha256 %x", p.Sha256)
	}
}

func fileText(b *strings.Builder, c Class, e *Event) {
	f := e.File
	b.WriteString(Word(f.Path))
	switch {
	case e.Target != nil && f.Flags&FileExchanged != 0:
		b.WriteString(" <-> " + Word(e.Target.Path))
	case e.Target != nil:
		b.WriteString(" -> " + Word(e.Target.Path))
	case len(f.LinkTarget) > 0:
		b.WriteString(" -> " + Word(f.LinkTarget))
	}
	switch c {
	case ClassFileChmod:
		fmt.Fprintf(b, " %04o -> %04o", f.ModeBefore&0o7777, f.Mode&0o7777)
	case ClassFileChown:
		fmt.Fprintf(b, " to %d:%d", f.Uid, f.Gid)
	case ClassFileTruncate:
		fmt.Fprintf(b, " %d -> %d bytes", f.SizeBefore, f.Size)
	case ClassFileClose:
		fmt.Fprintf(b, " %d writes, %d bytes written, size %d", f.Operations, f.Bytes, f.Size)
	case ClassFileXattr:
		fmt.Fprintf(b, " %s = %d bytes", Word(f.Attribute), f.AttributeSize)
	case ClassFileAttributes:
		fmt.Fprintf(b, " attributes %#x", f.Attributes)
	case ClassFileUtime:
		fmt.Fprintf(b, " modified at %d ns", f.Mtime)
	}
	if len(f.Sha256) > 0 {
		fmt.Fprintf(b, " sha256 %x", f.Sha256)
	}
	b.WriteByte(' ')
}

func networkText(b *strings.Builder, n *Network) {
	b.WriteString(Word([]byte(n.Protocol)) + " ")
	if n.Type == "raw" || n.Type == "packet" {
		b.WriteString(n.Type + " socket, protocol " + strconv.FormatUint(uint64(n.Number), 10) + " ")
	}
	switch {
	case n.Family != 4 && n.Family != 6 && len(n.Path) > 0:
		b.WriteString(Word(n.Path))
	case n.Protocol == "vsock":
		fmt.Fprintf(b, "%d:%d -> %d:%d", n.SourceCid, n.SourcePort, n.DestinationCid, n.DestinationPort)
	case len(n.DestinationIp) == 0 && len(n.SourceIp) > 0: // bind, listen
		b.WriteString("on " + address(n.SourceIp, n.SourcePort))
	default:
		b.WriteString(address(n.SourceIp, n.SourcePort) + " -> " + address(n.DestinationIp, n.DestinationPort))
	}
	if len(n.Name) > 0 {
		b.WriteString(" (" + Word(n.Name) + ")")
	}
	if n.Packets > 0 || n.Bytes > 0 {
		fmt.Fprintf(b, " %d packets, %d bytes", n.Packets, n.Bytes)
	}
	b.WriteByte(' ')
}

func idText(c *Credentials) string {
	return fmt.Sprintf("uid %d euid %d gid %d egid %d capabilities %#x", c.Uid, c.Euid, c.Gid, c.Egid, c.CapEffective)
}
