package record

import (
	"fmt"
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
		words(b, Printable([]byte(m.Operation)), Printable(m.Type), Printable(m.Source), Printable(m.SourcePath))
		if e.File != nil { // which comes next
			b.WriteString("at ")
		}
	}
	if n := e.Namespaces; n != nil {
		words(b, Printable([]byte(n.Operation)))
		fmt.Fprintf(b, "namespaces %#x ", n.Changed)
	}
	if t := e.Tamper; t != nil {
		words(b, Printable([]byte(t.Kind)), Printable([]byte(t.Hook)), Printable([]byte(t.Detail)))
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
	words(b, Printable([]byte(m.Kind)), Printable(m.Name))
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
	words(b, Printable([]byte(k.Operation)), Printable(k.Name))
	if len(k.Value) > 0 {
		b.WriteString("= " + Printable(k.Value) + " ")
	}
	for _, n := range []struct {
		name  string
		value uint64
	}{{"type", k.Type}, {"id", k.Id}, {"size", k.Size}} {
		if n.value != 0 {
			fmt.Fprintf(b, "%s %d ", n.name, n.value)
		}
	}
	if k.Refused {
		b.WriteString("refused ")
	}
}

func authText(b *strings.Builder, a *Auth) {
	words(b, Printable([]byte(a.Operation)))
	if len(a.Account) > 0 {
		b.WriteString("of " + Printable(a.Account) + " ")
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
		b.WriteString("from " + Printable(from) + " ")
	}
	if len(a.Terminal) > 0 {
		b.WriteString("on " + Printable(a.Terminal) + " ")
	}
	if len(a.Command) > 0 {
		b.WriteString("command " + Printable(a.Command) + " ")
	}
}

func dnsText(b *strings.Builder, c Class, d *DNS) {
	fmt.Fprintf(b, "%s type %d ", Printable(d.Question), d.Type)
	if c != ClassDNSAnswer {
		return
	}
	fmt.Fprintf(b, "code %d ", d.Code)
	for _, n := range d.Names {
		words(b, Printable(n))
	}
	for _, a := range d.Addresses {
		words(b, ipText(a))
	}
}
