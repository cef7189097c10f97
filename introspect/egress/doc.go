// Package egress guards the tap devices of domains: a program of package
// bpf/egress on each tap judges what the guest sends, outside of the guest, tells
// what was denied and which flows there are, and cuts a domain off at once. It
// promises that a tap which is guarded stays guarded, by what was said last, when
// the daemon ends and until it is told otherwise; that there is no moment between
// one set of policies and the next in which neither is in force; and that what
// could not be told is counted (invariant I4).
//
// Everything of one tap lies in a directory of its own on a BPF file system:
//
//	<ifindex>/from_guest, to_guest  the links that attach the programs (tcx)
//	<ifindex>/<object>/...          maps and programs, by the digest of their object
//
// A daemon that starts again adopts them. One with another object makes new maps,
// fills them, and only then has the link run the new program: a frame sees the old
// guard or the new one. Kernels before 6.6 have no such links; there the programs
// stand in a clsact filter, which stays on the device until that goes.
//
// # What is judged, and how
//
// Frames are read through at most two VLAN tags and eight IPv6 extension headers;
// what is not understood to its end is denied once any policy is in force. The
// destination address decides, at the longest prefix that a policy names; ports
// count where an entry names one. What a policy denies by name wins over what it
// allows, and every policy has to let a packet through. Tunnels are packets to
// their outer address. First fragments decide for the later ones; those whose
// first was not let through are denied. IPv4 options other than router alert and
// IPv6 routing headers are denied, because they can name another destination.
//
// ARP, neighbour discovery, listener reports and requests for addresses go out
// whatever the lists say, as far as they cannot leave the link. Replies to flows
// that others began go out unless their address is denied by name: TCP that began
// with a SYN, UDP for 180 s after the last datagram that came, echoes for 30 s. What
// comes from an address that the guest itself has sent from begins nothing: a router,
// or another of its taps, may have brought its own frame back.
// Flows that were there before the guard are not known to have been begun by
// others.
//
// A guest leaves checksums to the host, and says where they are written: behind the
// filter, by the last device on the way. Frames in which that would be upon what was
// judged are denied always. The kernel's description of a frame is read for it, which
// takes its type information (BTF).
//
// # Why it is so
//
// On the tap, because everything passes it, also on networks that are routed or
// open; changing libvirt's own filter of a running domain leaked probes for 24 ms, and
// neither that nor nftables gives back what was denied. Maps for each tap, because a
// shared table of flows would let a guest with very many of them push out its
// neighbours': about 1 MiB of the kernel's memory each. One lookup of the longest
// prefix, because rules are worked out when they are compiled: that of a narrow
// prefix repeats what the wider ones say. deny wins over allow whatever the lengths,
// because that can be checked by eye. A table of replies of its own and not the
// kernel's connection tracking, because that sees bridged packets only where it was
// switched on; only a SYN makes an entry of TCP, because otherwise late packets of a
// connection that was allowed once would make it a reply.
//
// What it costs: who may be reached may relay; an outsider who sends to the guest
// gets its answers; guests are not told what was denied; fragments that overtake
// their first one are denied.
package egress
