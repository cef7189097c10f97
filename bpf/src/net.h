/* SPDX-License-Identifier: GPL-2.0 */
#pragma once

#include "maps.h"

#include <bpf/bpf_endian.h>

static __always_inline void tell_connect(struct sock *sk)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct event_net e = {};
	__be32 a;

	if (BPF_CORE_READ(t, flags) & PF_KTHREAD)
		return;
	if (own(EV_CONNECT))
		return;
	e.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	e.protocol = IPPROTO_TCP;
	if (e.family == AF_INET) {
		a = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(e.saddr, &a, 4);
		a = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		__builtin_memcpy(e.daddr, &a, 4);
	} else if (e.family == AF_INET6) {
		bpf_core_read(&e.saddr, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&e.daddr, 16, &sk->__sk_common.skc_v6_daddr);
	} else {
		return; /* MPTCP and SMC connect through sockets of these families */
	}
	e.sport = BPF_CORE_READ(sk, __sk_common.skc_num);
	e.dport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	head(&e.h, EV_CONNECT, t);
	emit(&e, sizeof(e), 0, RING_BULK);
}

/* Both ports are known here; fast open comes by as well. */
SEC("fentry/tcp_connect")
int BPF_PROG(on_tcp_connect, struct sock *sk)
{
	tell_connect(sk);
	return 0;
}

/* Without fentry: the source port is not chosen yet. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_sock_state, struct sock *sk, int old, int new)
{
	if (new == TCP_SYN_SENT && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP)
		tell_connect(sk);
	return 0;
}
