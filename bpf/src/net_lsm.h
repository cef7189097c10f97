/* SPDX-License-Identifier: GPL-2.0 */
/* Connections, where functions of the kernel can be followed and LSM is to be
 * had. What the kernel does for IP is told once it returns, with its result;
 * none of these functions waits for the other side. Other families come by the
 * LSM hooks: attempts that have passed the checks before. */
#pragma once

#include "net.h"

static __always_inline void tell_tcp(struct sock *sk, const void *to, __u16 family, int ret)
{
	struct event_net e = {};
	struct address a = {};
	__u32 flags = 0;

	if (left_out(EV_CONNECT))
		return;
	read_address(&a, to);
	if (a.family == AF_UNSPEC)
		return;
	begin_net(&e, EV_CONNECT, sk);
	e.family = family; /* an IPv6 socket may speak IPv4 */
	parse_address(&a, e.daddr, &e.dport);
	if (family == AF_INET6 && mapped(e.daddr))
		return; /* told by the function for IPv4 */
	local_end(&e, sk);
	e.bits = fast_open(sk);
	if (ret < 0)
		flags = set_result(&e, ret);
	else if (!e.bits && nonblocking(sk))
		flags = set_result(&e, -EINPROGRESS);
	e.cookie = cookie_of(sk);
	emit_net(&e, flags);
}

/* These return when the first packet is on its way. Fast open comes by too. */
SEC("fexit/tcp_v4_connect")
int BPF_PROG(on_tcp_v4_connect, struct sock *sk, void *to, int len, int ret)
{
	tell_tcp(sk, to, AF_INET, ret);
	return 0;
}

SEC("fexit/tcp_v6_connect")
int BPF_PROG(on_tcp_v6_connect, struct sock *sk, void *to, int len, int ret)
{
	tell_tcp(sk, to, AF_INET6, ret);
	return 0;
}

/* UDP, ping and raw sockets, which only note whom they talk to. */
SEC("fexit/inet_dgram_connect")
int BPF_PROG(on_dgram_connect, struct socket *sock, void *to, int len, int flags, int ret)
{
	struct sock *sk = sock->sk;
	struct event_net e = {};
	struct address a = {};

	if (left_out(EV_CONNECT) || !by_process(sk))
		return 0;
	read_address(&a, to);
	if (a.family == AF_UNSPEC)
		return 0;
	begin_net(&e, EV_CONNECT, sk);
	e.family = a.family;
	parse_address(&a, e.daddr, &e.dport);
	if (e.type == SOCK_RAW)
		e.dport = 0;
	e.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (e.family == AF_INET6 && a.family == AF_INET)
		e.family = AF_INET;
	local_end(&e, sk);
	emit_net(&e, set_result(&e, ret));
	return 0;
}

/* other says which sockets no function above and below tells of. */
static __always_inline bool other(struct sock *sk)
{
	switch (BPF_CORE_READ(sk, __sk_common.skc_family)) {
	case AF_UNIX:
	case AF_NETLINK:
	case AF_PACKET:
	case AF_ALG:
		return false;
	case AF_INET:
	case AF_INET6:
		switch (BPF_CORE_READ(sk, sk_protocol)) {
		case IPPROTO_TCP:
			return false;
		}
		return BPF_CORE_READ(sk, sk_type) != SOCK_DGRAM && BPF_CORE_READ(sk, sk_type) != SOCK_RAW;
	}
	return true;
}

SEC("lsm/socket_connect")
int BPF_PROG(on_socket_connect, struct socket *sock, void *to, int len)
{
	struct sock *sk = BPF_CORE_READ(sock, sk);
	struct event_net e = {};
	struct address a = {};

	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX) {
		if (wanted(OPT_UNIX))
			tell_unix(to, len, sk, false, 0, 0);
		return 0;
	}
	/* MPTCP connects by TCP, which tells. */
	if (!other(sk) || BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP || left_out(EV_CONNECT))
		return 0;
	read_address(&a, to);
	if (a.family == AF_UNSPEC)
		return 0;
	begin_net(&e, EV_CONNECT, sk);
	local_end(&e, sk);
	parse_address(&a, e.daddr, &e.dport);
	emit_net(&e, 0);
	return 0;
}

/* A connection that was taken gets its socket: once, in the task that takes
 * it, whatever the family and the call. */
SEC("lsm/sock_graft")
int BPF_PROG(on_sock_graft, struct sock *sk, struct socket *parent)
{
	struct event_net e = {};

	switch (BPF_CORE_READ(sk, __sk_common.skc_family)) {
	case AF_UNIX:
	case AF_ALG:
		return 0;
	}
	if (left_out(EV_ACCEPT))
		return 0;
	begin_net(&e, EV_ACCEPT, sk);
	local_end(&e, sk);
	remote_end(&e, sk);
	e.bits = NET_INGRESS;
	e.cookie = cookie_of(sk);
	emit_net(&e, FL_RESULT);
	return 0;
}

static __always_inline void tell_bind(struct socket *sock, const void *to, int ret)
{
	struct sock *sk = BPF_CORE_READ(sock, sk);
	struct event_net e = {};
	struct address a = {};

	if (left_out(EV_BIND) || !by_process(sk))
		return;
	begin_net(&e, EV_BIND, sk);
	if (ret < 0) {
		read_address(&a, to);
		parse_address(&a, e.saddr, &e.sport);
		if (a.family == AF_INET)
			e.family = AF_INET;
	} else {
		local_end(&e, sk);
	}
	emit_net(&e, set_result(&e, ret));
}

SEC("fexit/inet_bind")
int BPF_PROG(on_inet_bind, struct socket *sock, void *to, int len, int ret)
{
	tell_bind(sock, to, ret);
	return 0;
}

SEC("fexit/inet6_bind")
int BPF_PROG(on_inet6_bind, struct socket *sock, void *to, int len, int ret)
{
	tell_bind(sock, to, ret);
	return 0;
}

SEC("lsm/socket_bind")
int BPF_PROG(on_socket_bind, struct socket *sock, void *to, int len)
{
	struct sock *sk = BPF_CORE_READ(sock, sk);
	struct event_net e = {};
	struct address a = {};
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	/* All of IP but MPTCP binds in one place. */
	if (!other(sk) || (inet(family) && BPF_CORE_READ(sk, sk_protocol) != IPPROTO_MPTCP) || left_out(EV_BIND))
		return 0;
	read_address(&a, to);
	begin_net(&e, EV_BIND, sk);
	parse_address(&a, e.saddr, &e.sport);
	emit_net(&e, 0);
	return 0;
}

SEC("fexit/inet_listen")
int BPF_PROG(on_inet_listen, struct socket *sock, int backlog, int ret)
{
	struct sock *sk = sock->sk;
	struct event_net e = {};

	if (left_out(EV_LISTEN) || !by_process(sk))
		return 0;
	begin_net(&e, EV_LISTEN, sk);
	local_end(&e, sk);
	e.backlog = backlog;
	emit_net(&e, set_result(&e, ret));
	return 0;
}

SEC("lsm/socket_listen")
int BPF_PROG(on_socket_listen, struct socket *sock, int backlog)
{
	struct sock *sk = BPF_CORE_READ(sock, sk);
	struct event_net e = {};

	if (!other(sk) || left_out(EV_LISTEN))
		return 0;
	begin_net(&e, EV_LISTEN, sk);
	local_end(&e, sk);
	e.backlog = backlog;
	emit_net(&e, 0);
	return 0;
}

SEC("lsm/socket_post_create")
int BPF_PROG(on_socket_post_create, struct socket *sock, int family, int type, int protocol, int kern)
{
	if (!kern && raw_kind(family, type))
		tell_raw(sock->sk, family, type, protocol, FL_RESULT);
	return 0;
}

/* flow tells of what a call has sent through a socket: to the address it was
 * given, else to the one the socket is connected to. */
static __always_inline void flow(struct sock *sk, struct msghdr *msg, __u16 family, int ret)
{
	const void *name = BPF_CORE_READ(msg, msg_name);
	struct event_net e = {};
	struct address a = {};

	if (ret < 0 || left_out(EV_SEND))
		return;
	begin_net(&e, EV_SEND, sk);
	if (name) {
		/* IPv4 through a socket of IPv6 is told by the other function,
		 * which it was handed to with an address that may be gone. */
		if (family == AF_INET6 && BPF_CORE_READ(msg, msg_namelen) < 24)
			return;
		read_address(&a, name);
		if (a.family != family)
			return;
		parse_address(&a, e.daddr, &e.dport);
	}
	/* A socket of IPv6 that speaks IPv4 has its addresses in both forms. */
	e.family = family;
	if (!name)
		remote_end(&e, sk);
	if (family == AF_INET6 && mapped(e.daddr))
		return;
	local_end(&e, sk);
	if (e.type == SOCK_RAW)
		e.dport = 0;
	e.cookie = cookie_of(sk);
	tell_flow(&e, e.cookie ? e.cookie : BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino), ret);
}

#define FLOW(function, family)                                                                \
	SEC("fexit/" #function)                                                               \
	int BPF_PROG(on_##function, struct sock *sk, struct msghdr *msg, unsigned long len, int ret) \
	{                                                                                     \
		flow(sk, msg, family, ret);                                                   \
		return 0;                                                                     \
	}

FLOW(udp_sendmsg, AF_INET)
FLOW(udpv6_sendmsg, AF_INET6)
FLOW(raw_sendmsg, AF_INET)
FLOW(rawv6_sendmsg, AF_INET6)
FLOW(ping_v4_sendmsg, AF_INET)
FLOW(ping_v6_sendmsg, AF_INET6)

/* Packet sockets send whole frames: what is in them is theirs to say, so the
 * destination is the interface. */
SEC("fexit/packet_sendmsg")
int BPF_PROG(on_packet_sendmsg, struct socket *sock, struct msghdr *msg, unsigned long len, int ret)
{
	struct sock *sk = sock->sk;
	struct event_net e = {};

	if (ret < 0 || left_out(EV_SEND))
		return 0;
	begin_net(&e, EV_SEND, sk);
	e.protocol = 0;
	e.cookie = cookie_of(sk);
	tell_flow(&e, e.cookie ? e.cookie : BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino), ret);
	return 0;
}
