package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// A way of seeing that a mode has only without better ones says itself what it
// lacks; so do the hooks of LSM.
const (
	noCompat = "calls of 32-bit programs and of io_uring are not seen"
)

var (
	progTCP4  = program{name: "on_tcp_v4_connect", hook: "fexit/tcp_v4_connect"}
	progTCP6  = program{name: "on_tcp_v6_connect", hook: "fexit/tcp_v6_connect"}
	progState = program{name: "on_sock_state", hook: "tp_btf/inet_sock_set_state",
		lacks: "of TCP the source port is not known yet, and neither is the result; attempts that end before the first packet are not seen"}
	progDgram  = program{name: "on_dgram_connect", hook: "fexit/inet_dgram_connect"}
	progBind4  = program{name: "on_inet_bind", hook: "fexit/inet_bind"}
	progBind6  = program{name: "on_inet6_bind", hook: "fexit/inet6_bind"}
	progListen = program{name: "on_inet_listen", hook: "fexit/inet_listen"}

	callConnect = program{name: "on_connected", hook: "tp_btf/sys_exit(connect)", calls: []uint32{unix.SYS_CONNECT},
		lacks: "other than TCP: told when the call has ended; " + noCompat}
	callAccept = program{name: "on_accepted", hook: "tp_btf/sys_exit(accept)", calls: []uint32{unix.SYS_ACCEPT, unix.SYS_ACCEPT4}, lacks: noCompat}
	callBind   = program{name: "on_bound", hook: "tp_btf/sys_exit(bind)", calls: []uint32{unix.SYS_BIND, unix.SYS_LISTEN}, lacks: noCompat}
	callSocket = program{name: "on_made", hook: "tp_btf/sys_exit(socket)", calls: []uint32{unix.SYS_SOCKET}, lacks: noCompat}
)

func fexit(name, function string) program { return program{name: name, hook: "fexit/" + function} }

var (
	progUDP4   = fexit("on_udp_sendmsg", "udp_sendmsg")
	progUDP6   = fexit("on_udpv6_sendmsg", "udpv6_sendmsg")
	progOthers = []program{fexit("on_raw_sendmsg", "raw_sendmsg"), fexit("on_rawv6_sendmsg", "rawv6_sendmsg"),
		fexit("on_ping_v4_sendmsg", "ping_v4_sendmsg"), fexit("on_ping_v6_sendmsg", "ping_v6_sendmsg"), fexit("on_packet_sendmsg", "packet_sendmsg")}
	progEgress = program{name: "on_egress", hook: "cgroup_skb/egress",
		lacks: "what packet sockets send is not seen; datagrams are counted as packets, and with a header of their own on raw sockets"}
)

const (
	onceSent = "once for each process, socket and destination, and again when more than 16384 of those are in use, of a process beyond its budget only while there is room for sums; SCTP, vsock and unix datagrams are not seen"
	asSums   = "as sums for some seconds, and where there are more than 3072 destinations in these, the rest of each process in one sum without them; SCTP, vsock and unix datagrams are not seen"
)

var (
	progQuery  = program{name: "on_dns_query", hook: "cgroup_skb/egress(53)"}
	progAnswer = program{name: "on_dns_answer", hook: "cgroup_skb/ingress(53)"}
)

const noSecure = "only datagrams of UDP port 53, of which 2048 bytes are read; DNS over TCP, TLS, HTTPS and QUIC is not seen"

func wantDNS(o Options) bool { return o.DNS }

// foldLimit says what a process beyond its budget is told as.
const foldLimit = "beyond its budget a process's creations, writes, ends of written files and deletions are told as sums by directory, without single names, after the first 256 of each and the first of each upon a file that it did not make; its connections and datagrams by destination after the first; mappings without a file and memfds by what they are and allow, after 256; all else is told one by one, and of each kind what is told after 1024 is dropped, with its count, while the ring is half full"

// foldNames is what mode tracepoint cannot tell apart.
const foldNames = "; deletions and new directories by name are told as sums only where the name is one component of less than 64 bytes, whosoever's file it is"

// dnsCovers are the same in both modes.
var dnsCovers = []cover{
	{class: record.ClassDNSQuery, needs: []program{progQuery}, option: wantDNS, limit: noSecure},
	{class: record.ClassDNSAnswer, needs: []program{progAnswer, progQuery}, option: wantDNS, limit: noSecure +
		"; what an answer holds is told if its question was seen at most 30 s before, of it at most 64 records and 4096 bytes of aliases"},
}

func wantUnix(o Options) bool { return o.Unix }

const (
	laterResult = "what becomes of a TCP connection after its first packet is not told; of families other than IP and of SCTP attempts are told, their result is not"
	noDatagrams = "datagrams to an address without connect(2) are not seen"
)

var networkLSM = []cover{
	{class: record.ClassNetworkConnect, needs: []program{progDgram, lsm("socket_connect")},
		anyOf: [][]program{{progTCP4, progState}}, extra: []program{progTCP6}, limit: laterResult},
	{class: record.ClassNetworkAccept, needs: []program{lsm("sock_graft")}},
	{class: record.ClassNetworkBind, needs: []program{progBind4, lsm("socket_bind")}, extra: []program{progBind6},
		limit: "unix, netlink and packet sockets are left out; of families other than IP attempts are told, their result is not"},
	{class: record.ClassNetworkListen, needs: []program{progListen, lsm("socket_listen")},
		limit: "unix sockets are left out; other than TCP attempts are told, their result is not"},
	{class: record.ClassNetworkRaw, needs: []program{lsm("socket_post_create")}},
	{class: record.ClassNetworkSend, needs: []program{progUDP4}, extra: append([]program{progUDP6}, progOthers...), limit: onceSent},
	{class: record.ClassNetworkFlow, needs: []program{progUDP4}, extra: append([]program{progUDP6}, progOthers...), limit: asSums},
	{class: record.ClassAgentAggregating, needs: []program{lsm("file_permission"), progDgram}, limit: foldLimit},
	{class: record.ClassNetworkUnix, needs: []program{lsm("socket_connect")}, option: wantUnix,
		limit: noDatagrams + "; attempts are told, their result is not"},
}

var networkTracepoint = []cover{
	{class: record.ClassNetworkConnect, needs: []program{progState, callConnect}},
	{class: record.ClassNetworkAccept, needs: []program{callAccept}},
	{class: record.ClassNetworkBind, needs: []program{callBind}, limit: "unix, netlink and packet sockets are left out"},
	{class: record.ClassNetworkListen, needs: []program{callBind}, limit: "unix sockets are left out"},
	{class: record.ClassNetworkRaw, needs: []program{callSocket}},
	{class: record.ClassNetworkSend, needs: []program{progEgress}, limit: onceSent},
	{class: record.ClassNetworkFlow, needs: []program{progEgress}, limit: asSums},
	{class: record.ClassAgentAggregating, needs: []program{progOpened}, limit: foldLimit + foldNames},
	{class: record.ClassNetworkUnix, needs: []program{callConnect}, option: wantUnix, limit: noDatagrams},
}
