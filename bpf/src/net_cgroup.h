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

#define PORT_DNS 53
#define DNS_BYTES 2048

struct asker {
	__u64 start;
	__u32 tgid, tid, euid, mntns;
};

/* Who asked last through a socket, by its cookie: an answer comes without its
 * task. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct asker);
} askers SEC(".maps");

/* dns tells of a datagram to or from port 53: all of it, for the agent to
 * read. */
static __always_inline void dns(struct __sk_buff *skb, bool answer)
{
	struct bpf_sock *sk = skb->sk;
	struct event_net e = {};
	struct event_dns *d;
	struct scratch *s;
	struct asker *who, me = {};
	__be16 ports[2];
	__u32 at, n;
	__u64 cookie;
	__u8 next;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->type != SOCK_DGRAM || sk->protocol != IPPROTO_UDP)
		return;
	at = packet(skb, &e, &next);
	if (!at || next != IPPROTO_UDP || bpf_skb_load_bytes(skb, at, ports, 4))
		return;
	if (ports[answer ? 0 : 1] != bpf_htons(PORT_DNS))
		return;
	at += UDP_HEADER;
	if (skb->len <= at)
		return;
	n = skb->len - at;
	cookie = bpf_get_socket_cookie(skb);
	if (!answer && (!by_process(kernel_sock(sk)) || left_out(EV_DNS)))
		return;
	s = take(EV_DNS, RING_BULK);
	if (!s)
		return;
	d = (struct event_dns *)s->data;
	__builtin_memset(d, 0, sizeof(*d));
	if (answer) {
		who = bpf_map_lookup_elem(&askers, &cookie);
		if (!who) {
			give(s); /* nobody that we know asked */
			return;
		}
		d->h.type = EV_DNS;
		d->h.tgid = who->tgid;
		d->h.tid = who->tid;
		d->h.start = who->start;
		d->h.euid = who->euid;
		d->h.mntns = who->mntns;
	} else {
		head(&d->h, EV_DNS, (struct task_struct *)bpf_get_current_task());
		if (over_budget())
			s->flags |= weight(EV_DNS);
		me.start = d->h.start;
		me.tgid = d->h.tgid;
		me.tid = d->h.tid;
		me.euid = d->h.euid;
		me.mntns = d->h.mntns;
		bpf_map_update_elem(&askers, &cookie, &me, BPF_ANY);
	}
	d->cookie = cookie;
	d->netns = BPF_CORE_READ(kernel_sock(sk), __sk_common.skc_net.net, ns.inum);
	d->family = e.family;
	d->answer = answer;
	d->port = bpf_ntohs(ports[answer ? 1 : 0]);
	__builtin_memcpy(d->server, answer ? e.saddr : e.daddr, 16);
	if (n > DNS_BYTES) {
		n = DNS_BYTES;
		s->flags |= FL_ARGS_TRUNC;
	}
	n = ((n - 1) & (DNS_BYTES - 1)) + 1;
	if (bpf_skb_load_bytes(skb, at, s->data + sizeof(*d), n)) {
		drop_unsequenced(EV_DNS, RING_BULK, DROP_FAULT);
		give(s);
		return;
	}
	d->data_len = n;
	s->off = sizeof(*d) + n;
	send(s, d, RING_BULK);
	give(s);
}

SEC("cgroup_skb/egress")
int on_dns_query(struct __sk_buff *skb)
{
	dns(skb, false);
	return 1;
}

SEC("cgroup_skb/ingress")
int on_dns_answer(struct __sk_buff *skb)
{
	dns(skb, true);
	return 1;
}
