package record

import (
	"fmt"
	"math"
	"strings"
)

// partsText says what the parts hold that few classes carry.
func partsText(b *strings.Builder, c Class, e *Event) {
	if e.Memory != nil {
		memoryText(b, e.Memory)
	}
	if e.Kernel != nil {
		kernelText(b, e.Kernel)
	}
	if e.Auth != nil {
		authText(b, e.Auth)
	}
	if e.Dns != nil {
		dnsText(b, c, e.Dns)
	}
	if m := e.Mount; m != nil {
		words(b, Word([]byte(m.Operation)), Word(m.Type), Word(m.Source), Word(m.SourcePath))
		if e.File != nil { // which comes next
			b.WriteString("at ")
		}
	}
	if n := e.Namespaces; n != nil {
		words(b, Word([]byte(n.Operation)))
		fmt.Fprintf(b, "namespaces %#x ", n.Changed)
	}
	if t := e.Tamper; t != nil {
		words(b, Word([]byte(t.Kind)), Word([]byte(t.Hook)), Word([]byte(t.Detail)))
		if t.Refused {
			b.WriteString("refused ")
		}
	}
}

// words writes those that say something, with a blank behind each.
func words(b *strings.Builder, all ...string) {
	for _, w := range all {
		if w != "" {
			b.WriteString(w + " ")
		}
	}
}

func memoryText(b *strings.Builder, m *Memory) {
	words(b, Word([]byte(m.Kind)), Word(m.Name))
	fmt.Fprintf(b, "%d bytes ", m.Length)
	if m.Address != 0 {
		fmt.Fprintf(b, "at %#x ", m.Address)
	}
	if m.ProtectionBefore != 0 {
		b.WriteString(protection(m.ProtectionBefore) + " -> ")
	}
	if m.Protection != 0 || m.ProtectionBefore != 0 {
		b.WriteString(protection(m.Protection) + " ")
	}
	if m.Anonymous {
		b.WriteString("anonymous ")
	}
}

// protection writes PROT bits as /proc/PID/maps does.
func protection(p uint32) string {
	s := []byte("---")
	for i, c := range []byte("rwx") {
		if p&(1<<i) != 0 {
			s[i] = c
		}
	}
	return string(s)
}

func kernelText(b *strings.Builder, k *Kernel) {
	words(b, Word([]byte(k.Operation)), Word(k.Name))
	if len(k.Value) > 0 {
		b.WriteString("= " + Word(k.Value) + " ")
	}
	for _, n := range []struct {
		name  string
		value uint64
	}{{"type", k.Type}, {"id", k.Id}, {"size", k.Size}} {
		if n.value != 0 {
			fmt.Fprintf(b, "%s %d ", n.name, n.value)
		}
	}
	if k.Signature != "" {
		b.WriteString("signature " + Word([]byte(k.Signature)) + " ")
	}
	if k.Refused {
		b.WriteString("refused ")
	}
}

func authText(b *strings.Builder, a *Auth) {
	words(b, Word([]byte(a.Operation)))
	if len(a.Account) > 0 {
		b.WriteString("of " + Word(a.Account) + " ")
	}
	if a.Success {
		b.WriteString("succeeded ")
	} else {
		b.WriteString("failed ")
	}
	from := a.Address
	if len(from) == 0 {
		from = a.Hostname
	}
	if len(from) > 0 {
		b.WriteString("from " + Word(from) + " ")
	}
	if len(a.Terminal) > 0 {
		b.WriteString("on " + Word(a.Terminal) + " ")
	}
	if len(a.Command) > 0 {
		b.WriteString("command " + Word(a.Command) + " ")
	}
}

func dnsText(b *strings.Builder, c Class, d *DNS) {
	fmt.Fprintf(b, "%s type %d ", Word(d.Question), d.Type)
	if c != ClassDNSAnswer {
		return
	}
	fmt.Fprintf(b, "code %d ", d.Code)
	for _, n := range d.Names {
		words(b, Word(n))
	}
	for _, a := range d.Addresses {
		words(b, ipText(a))
	}
	if d.Truncated {
		b.WriteString("and more ")
	}
}

func witnessText(b *strings.Builder, m *WitnessState) {
	fmt.Fprintf(b, "host log at %d entries: ", m.Size)
	switch {
	case m.Dispute != "":
		b.WriteString(Printable([]byte(m.Dispute)))
	case m.Missing != "":
		b.WriteString(Printable([]byte(m.Missing)))
		for _, a := range m.Answers {
			if a.Problem != "" {
				b.WriteString("; " + Printable([]byte(a.Name)) + ": " + Printable([]byte(a.Problem)))
			}
		}
	default:
		b.WriteString("the witnesses cosign it")
	}
}

func disclosedText(b *strings.Builder, m *Disclosed) {
	if m.Count > 0 {
		fmt.Fprintf(b, "%d payloads of ", m.Count)
	} else {
		b.WriteString("payloads of ")
	}
	if m.Origin == "" {
		b.WriteString("all logs that are seen") // by a tenant: its own
	} else {
		b.WriteString(Printable([]byte(m.Origin)))
	}
	switch {
	case m.Last == math.MaxUint64:
		fmt.Fprintf(b, " from entry %d on", m.First)
	case m.First == m.Last:
		fmt.Fprintf(b, " entry %d", m.First)
	default:
		fmt.Fprintf(b, " entries %d to %d", m.First, m.Last)
	}
	fmt.Fprintf(b, " given to %s %s (%s)", Printable([]byte(m.Role)), Word([]byte(m.Name)), Printable([]byte(m.How)))
	if m.Address != "" {
		b.WriteString(" at " + Printable([]byte(m.Address)))
	}
	b.WriteString(" by " + Printable([]byte(m.What)))
}
