/* SPDX-License-Identifier: GPL-2.0 */
/* Packets, as they leave and reach sockets: hooks of control groups, which run
 * on every kernel. On its way out a packet is still with the task that sends. */
#pragma once

#include "net.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPV6_HEADER 40
#define UDP_HEADER 8

/* packet finds the addresses of a packet; its return is where its payload
 * starts, 0 for one that is none of ours. Extension headers of IPv6 are passed
 * by: such a datagram is told with its addresses and without ports. */
static __always_inline __u32 packet(struct __sk_buff *skb, struct event_net *e, __u8 *next)
{
	__u8 first;

	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		e->family = AF_INET;
		if (bpf_skb_load_bytes(skb, 9, next, 1) || bpf_skb_load_bytes(skb, 12, e->saddr, 4) ||
		    bpf_skb_load_bytes(skb, 16, e->daddr, 4))
			return 0;
		return (first & 15) * 4;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		e->family = AF_INET6;
		if (bpf_skb_load_bytes(skb, 6, next, 1) || bpf_skb_load_bytes(skb, 8, e->saddr, 16) ||
		    bpf_skb_load_bytes(skb, 24, e->daddr, 16))
			return 0;
		return IPV6_HEADER;
	}
	return 0;
}

/* kernel_sock gives the kernel's own view of a socket: a plain address. */
static __always_inline struct sock *kernel_sock(struct bpf_sock *sk)
{
	struct sock *plain = 0;

	bpf_probe_read_kernel(&plain, sizeof(plain), &sk);
	return plain;
}

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct event_net e = {};
	__be16 ports[3];
	__u32 at;
	__u8 next;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk || (sk->type != SOCK_DGRAM && sk->type != SOCK_RAW))
		return 1;
	/* What the kernel itself answers meets any task. */
	if (!by_process(kernel_sock(sk)) || left_out(EV_SEND))
		return 1;
	head(&e.h, EV_SEND, (struct task_struct *)bpf_get_current_task());
	at = packet(skb, &e, &next);
	if (!at)
		return 1;
	e.type = sk->type;
	e.protocol = sk->protocol;
	e.netns = BPF_CORE_READ(kernel_sock(sk), __sk_common.skc_net.net, ns.inum);
	e.cookie = bpf_get_socket_cookie(skb);
	if (next == IPPROTO_UDP && sk->type == SOCK_DGRAM && !bpf_skb_load_bytes(skb, at, ports, 6)) {
		e.sport = bpf_ntohs(ports[0]);
		e.dport = bpf_ntohs(ports[1]);
		at += UDP_HEADER;
	}
	tell_flow(&e, e.cookie, skb->len > at ? skb->len - at : 0);
	return 1;
}
