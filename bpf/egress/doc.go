// Package egress holds the kernel programs that guard one tap device of the host,
// their C source in src, and the object and Go types that bpf2go makes of it, both
// committed. It promises that a plain go build needs no compiler for BPF, and that
// the layouts in Go are those of the object. Only introspect/egress imports it.
//
//	egress.bpf.c  what is let through, told and counted
//	parse.h       frames, read to their end or refused
//	maps.h        what is in force, what was seen, the way out for events
//	layout.h      layouts, shared with Go
//
// The object carries the licence string GPL, because the kernel gives the helpers
// it uses to no others; the sources are GPL-2.0.
package egress

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package egress -no-global-types -type config -type prefix -type rule -type port_key -type port_rule -type flow -type denied -type counts -type event -type dns_event -type reason -type event_kind -type counter Egress src/egress.bpf.c -- -mcpu=v3 -O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu
