/* SPDX-License-Identifier: GPL-2.0 */
/* What all sources of events about sockets share. */
#pragma once

#include "budget.h"
#include "file.h"

#include <bpf/bpf_endian.h>

/* The front of any socket address, as long as that of IPv6. */
struct address {
	__u16 family;
	__u8 b[26];
};

static __always_inline void read_address(struct address *a, const void *from)
{
	bpf_probe_read_kernel(a, sizeof(*a), from);
}

static __always_inline void user_address(struct address *a, const void *from)
{
	if (bpf_probe_read_user(a, sizeof(*a), from))
		bpf_probe_read_user(a, 16, from); /* IPv4 and vsock are shorter */
}

/* parse_address takes out what an address names. */
static __always_inline void parse_address(const struct address *a, __u8 *to, __u32 *port)
{
	__be16 p;

	switch (a->family) {
	case AF_INET:
		__builtin_memcpy(&p, a->b, 2);
		__builtin_memcpy(to, a->b + 2, 4);
		*port = bpf_ntohs(p);
		break;
	case AF_INET6:
		__builtin_memcpy(&p, a->b, 2);
		__builtin_memcpy(to, a->b + 6, 16);
		*port = bpf_ntohs(p);
		break;
	case AF_VSOCK:
		__builtin_memcpy(port, a->b + 2, 4);
		__builtin_memcpy(to, a->b + 6, 4);
		break;
	}
}

static __always_inline bool mapped(const __u8 *a)
{
	const __u32 *w = (const __u32 *)a;

	return w[0] == 0 && w[1] == 0 && w[2] == bpf_htonl(0xffff);
}

#define VSOCK_ANY 0xffffffff

/* Beginning of a vsock socket behind its struct sock: type information of the
 * kernel proper does not have it. The families prove that it is what it looks. */
struct vsock_part {
	__u64 transport;
	struct {
		__u16 family, reserved;
		__u32 port, cid;
		__u32 pad;
	} local, remote;
};

static __always_inline void vsock_ends(struct event_net *e, struct sock *sk, bool remote)
{
	struct vsock_part v;

	if (bpf_probe_read_kernel(&v, sizeof(v), (void *)sk + bpf_core_type_size(struct sock)))
		return;
	if (v.local.family != AF_VSOCK || v.remote.family != AF_VSOCK)
		return;
	if (v.local.port != VSOCK_ANY)
		e->sport = v.local.port;
	/* A socket that takes all that comes says so; 0 is the hypervisor. */
	if (v.local.cid != VSOCK_ANY || e->h.type == EV_BIND || e->h.type == EV_LISTEN)
		__builtin_memcpy(e->saddr, &v.local.cid, 4);
	if (!remote)
		return;
	e->dport = v.remote.port;
	__builtin_memcpy(e->daddr, &v.remote.cid, 4);
}

/* begin_net starts an event about a socket: who, and what kind of socket. */
static __always_inline void begin_net(struct event_net *e, __u32 type, struct sock *sk)
{
	head(&e->h, type, (struct task_struct *)bpf_get_current_task());
	e->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	e->protocol = BPF_CORE_READ(sk, sk_protocol);
	e->type = BPF_CORE_READ(sk, sk_type);
	e->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

/* local_end fills the side of this machine. The number of a raw socket is its
 * protocol. */
static __always_inline void local_end(struct event_net *e, struct sock *sk)
{
	if (e->family == AF_INET) {
		bpf_core_read(e->saddr, 4, &sk->__sk_common.skc_rcv_saddr);
	} else if (e->family == AF_INET6) {
		bpf_core_read(e->saddr, 16, &sk->__sk_common.skc_v6_rcv_saddr);
	} else {
		if (e->family == AF_VSOCK)
			vsock_ends(e, sk, false);
		return;
	}
	if (e->type != SOCK_RAW)
		e->sport = BPF_CORE_READ(sk, __sk_common.skc_num);
}

static __always_inline void remote_end(struct event_net *e, struct sock *sk)
{
	if (e->family == AF_INET) {
		bpf_core_read(e->daddr, 4, &sk->__sk_common.skc_daddr);
	} else if (e->family == AF_INET6) {
		bpf_core_read(e->daddr, 16, &sk->__sk_common.skc_v6_daddr);
	} else {
		if (e->family == AF_VSOCK)
			vsock_ends(e, sk, true);
		return;
	}
	if (e->type != SOCK_RAW)
		e->dport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

static __always_inline __u32 set_result(struct event_net *e, long ret)
{
	e->h.arg = ret < 0 ? -ret : 0;
	return FL_RESULT;
}

static __always_inline bool inet(__u16 family)
{
	return family == AF_INET || family == AF_INET6;
}

/* Sockets that the kernel uses itself have no file, and neither have the parts
 * that connections of MPTCP are made of. */
static __always_inline bool by_process(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file) != 0;
}

static __always_inline bool nonblocking(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file, f_flags) & O_NONBLOCK;
}

static __always_inline __u16 fast_open(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	if (BPF_CORE_READ(tp, fastopen_req) || BPF_CORE_READ_BITFIELD_PROBED(tp, fastopen_connect))
		return NET_FAST_OPEN;
	return 0;
}

/* emit_within sends an event, or counts it in b, the budget that its process
 * has gone over; else b is null. Connections are folded by where they go, those
 * that are taken by the port here and where they come from. Ports that are taken
 * and raw sockets are told one by one. */
static __always_inline void emit_within(struct bucket *b, struct event_net *e, __u32 flags)
{
	if (b && (BIT(e->h.type & (EV_TYPES - 1)) & FOLDED_TYPES)) {
		struct sum_key k = {
			.start = e->h.start,
			.tgid = e->h.tgid,
			.place = e->h.type == EV_ACCEPT ? e->sport : e->dport,
			.protocol = e->protocol,
			.type = e->h.type,
			.layout = SUM_NET,
			.netns = e->netns,
		};

		__builtin_memcpy(k.address, e->daddr, 16);
		if (fold_fixed(b, &k, e, sizeof(*e), e->bytes))
			return;
	}
	if (b)
		flags |= weight(e->h.type);
	emit(e, flags, RING_BULK);
}

static __always_inline void emit_net(struct event_net *e, __u32 flags)
{
	emit_within(over_budget(), e, flags);
}

#ifdef OLD
/* Not to be had before 5.12 outside of packets. */
#define cookie_of(sk) 0
#else
#define cookie_of(sk) bpf_get_socket_cookie(sk)
#endif

static __always_inline void tell_unix(const void *from, __u32 len, struct sock *sk, bool user, __u32 flags, __u32 result)
{
	struct scratch *s;
	struct event_unix *e;
	__u16 family_bytes = 2;
	long err;

	if (left_out(EV_UNIX))
		return;
	if (len < family_bytes || len > 110)
		return; /* the kernel takes no such address */
	s = take(EV_UNIX, RING_BULK);
	if (!s)
		return;
	e = (struct event_unix *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	head(&e->h, EV_UNIX, (struct task_struct *)bpf_get_current_task());
	e->h.arg = result;
	e->type = BPF_CORE_READ(sk, sk_type);
	s->off = sizeof(*e);
	s->flags = flags | (over_budget() ? weight(EV_UNIX) : 0);
	len = (len - family_bytes) & 127;
	if (len > 0) {
		err = user ? bpf_probe_read_user(s->data + sizeof(*e), len, from + family_bytes)
			   : bpf_probe_read_kernel(s->data + sizeof(*e), len, from + family_bytes);
		if (err) {
			drop_unsequenced(EV_UNIX, RING_BULK, DROP_FAULT);
			give(s);
			return;
		}
		e->name_len = len;
		s->off += len;
	}
	send(s, e, RING_BULK);
	give(s);
}

/* raw_kind says whether a new socket is one that bypasses what the other
 * classes tell. */
static __always_inline bool raw_kind(int family, int type)
{
	type &= SOCK_TYPE_MASK;
	if (family == AF_PACKET)
		return true;
	return (type == SOCK_RAW || type == SOCK_PACKET) && family != AF_NETLINK && family != AF_UNIX;
}

static __always_inline void tell_raw(struct sock *sk, int family, int type, int protocol, __u32 flags)
{
	struct event_net e = {};

	if (!sk || left_out(EV_RAW))
		return;
	begin_net(&e, EV_RAW, sk);
	e.family = family;
	e.type = type & SOCK_TYPE_MASK;
	e.protocol = family == AF_PACKET ? bpf_ntohs(protocol) : protocol;
	emit_net(&e, flags);
}

/* tell_flow counts a datagram of a process through a socket to a destination:
 * e has who and where. The first is an event of its own as well. When there are
 * too many destinations, the rest of a process's go into one sum; of a process
 * over its budget they then are no events of their own. */
static __always_inline void tell_flow(struct event_net *e, __u64 object, __u64 bytes)
{
	struct sum_key k = {
		.start = e->h.start,
		.tgid = e->h.tgid,
		.object = object,
		.place = e->dport,
		.protocol = e->protocol,
		.type = EV_FLOW,
		.layout = SUM_FLOW,
		.netns = e->netns,
	};
	void *m = current_sums();
	struct bucket *b;
	struct scratch *s;
	bool room, own;

	if (!m)
		return;
	__builtin_memcpy(k.address, e->daddr, 16);
	if (add_up(m, &k, bytes))
		return;
	own = room_for_destination(m);
	b = over_budget();
	if ((own || !b) && first_time(&k)) {
		e->h.type = EV_SEND;
		e->bits |= NET_FIRST;
		e->bytes = bytes;
		emit_within(b, e, FL_RESULT);
		e->bits &= ~NET_FIRST;
	}
	e->h.type = EV_FLOW;
	e->packets = 1;
	e->bytes = bytes;
	s = take(EV_FLOW, RING_BULK);
	if (!s)
		return;
	if (!own) {
		k.object = 0;
		k.place = 0;
		__builtin_memset(k.address, 0, 16);
	}
	__builtin_memcpy(((struct sum *)s->data)->event, e, sizeof(*e));
	room = enter_sum(s, m, &k, bytes);
	give(s);
	if (!room)
		emit_net(e, FL_RESULT);
}

/* The state of a TCP socket changes in the task that connects. The source port
 * is not chosen yet. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_sock_state, struct sock *sk, int old, int new)
{
	struct event_net e = {};

	if (new != TCP_SYN_SENT || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	if (left_out(EV_CONNECT))
		return 0;
	begin_net(&e, EV_CONNECT, sk);
	/* IPv4 of an IPv6 socket has only those addresses set by now. */
	remote_end(&e, sk);
	local_end(&e, sk);
	if (e.family == AF_INET6 && mapped(e.daddr)) {
		__builtin_memset(e.saddr, 0, 10);
		e.saddr[10] = e.saddr[11] = 0xff;
		bpf_core_read(e.saddr + 12, 4, &sk->__sk_common.skc_rcv_saddr);
	}
	e.bits = fast_open(sk);
	emit_net(&e, 0);
	return 0;
}
