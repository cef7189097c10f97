/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright the Provost authors. */
/* Frames as a guest may make them, which is any way it likes. Whatever is not
 * understood to its end is refused with a reason: a frame that reads one way here
 * and another way at a router would be a way out. */
#pragma once

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"

#define ETH_IPV4 0x0800
#define ETH_ARP 0x0806
#define ETH_IPV6 0x86dd
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88a8
#define ETH_QINQ_OLD 0x9100

#define PROTO_ICMP 1
#define PROTO_IGMP 2
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_DCCP 33
#define PROTO_ICMPV6 58
#define PROTO_SCTP 132
#define PROTO_UDPLITE 136

#define EXT_HOP_BY_HOP 0
#define EXT_ROUTING 43
#define EXT_FRAGMENT 44
#define EXT_AUTH 51
#define EXT_DESTINATION 60
#define MAX_EXTENSIONS 8

#define FRAGMENT_FIRST 1
#define FRAGMENT_LATER 2

struct packet {
	__u8 source[ADDRESS];
	__u8 destination[ADDRESS];
	__u16 source_port; /* ICMP: the type */
	__u16 destination_port; /* ICMP: the identifier of echoes */
	__u32 fragment_id;
	__u16 ethertype;
	__u16 vlan[2];
	__u8 source_mac[6];
	__u8 destination_mac[6];
	__u8 family;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 fragment;
	__u8 hops;
	__u8 unused;
	__u32 transport; /* where its header begins */
	__u32 end;	 /* of the IP packet; what follows pads the frame */
	__u32 judged;	 /* how far the frame was read to judge it */
};

static __always_inline int load(struct __sk_buff *skb, __u32 at, void *to, __u32 size)
{
	return bpf_skb_load_bytes(skb, at, to, size);
}

static __always_inline void from_ipv4(__u8 *to, __u32 address)
{
	__u32 *w = (__u32 *)to;
	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = address;
}

static __always_inline int is_mapped(const __u8 *a)
{
	const __u32 *w = (const __u32 *)a;
	return !w[0] && !w[1] && w[2] == bpf_htonl(0xffff);
}

/* Ports, where the protocol has them at this place. */
static __always_inline int parse_transport(struct __sk_buff *skb, struct packet *p)
{
	__u8 h[16];
	__u32 room = p->end > p->transport ? p->end - p->transport : 0;
	switch (p->protocol) {
	case PROTO_TCP:
		if (room < 20 || load(skb, p->transport, h, 14))
			return REASON_TRANSPORT;
		if ((h[12] >> 4) < 5 || (__u32)(h[12] >> 4) * 4 > room)
			return REASON_TRANSPORT;
		p->tcp_flags = h[13];
		p->judged = p->transport + 14;
		break;
	case PROTO_SCTP:
	case PROTO_DCCP:
		if (room < 12 || load(skb, p->transport, h, 4))
			return REASON_TRANSPORT;
		break;
	case PROTO_UDP:
	case PROTO_UDPLITE:
		if (room < 8 || load(skb, p->transport, h, 4))
			return REASON_TRANSPORT;
		break;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		if (room < 8 || load(skb, p->transport, h, 8))
			return REASON_TRANSPORT;
		p->source_port = h[0];
		p->judged = p->transport + 2; /* where its checksum is */
		if ((p->protocol == PROTO_ICMP && (h[0] == 8 || h[0] == 0)) || (p->protocol == PROTO_ICMPV6 && (h[0] == 128 || h[0] == 129)))
			p->destination_port = (__u16)h[4] << 8 | h[5];
		return 0;
	default:
		return 0; /* tunnels and the rest are judged by their addresses */
	}
	if (p->protocol != PROTO_TCP)
		p->judged = p->transport + 4;
	p->source_port = (__u16)h[0] << 8 | h[1];
	p->destination_port = (__u16)h[2] << 8 | h[3];
	return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	__u8 h[24];
	__u32 size, total, off;
	if (load(skb, at, h, 20))
		return REASON_HEADER;
	size = (__u32)(h[0] & 15) * 4;
	total = (__u32)h[2] << 8 | h[3];
	p->judged = at + 20;
	if (h[0] >> 4 != 4 || size < 20 || total < size || total > skb->len - at)
		return REASON_HEADER;
	p->family = 4;
	p->hops = h[8];
	p->protocol = h[9];
	from_ipv4(p->source, *(__u32 *)(h + 12));
	from_ipv4(p->destination, *(__u32 *)(h + 16));
	if (size > 20) {
		/* Router alert, as IGMP has it, is the one option that names no address. */
		if (size != 24 || load(skb, at + 20, h + 20, 4) || h[20] != 0x94 || h[21] != 4)
			return REASON_OPTIONS;
	}
	p->transport = p->judged = at + size;
	p->end = at + total;
	off = ((__u32)h[6] << 8 | h[7]) & 0x3fff;
	p->fragment_id = (__u32)h[4] << 8 | h[5];
	if (off & 0x1fff) {
		p->fragment = FRAGMENT_LATER;
		/* Eight bytes in, it would lie upon the flags of TCP (RFC 3128). */
		if ((off & 0x1fff) == 1 && p->protocol == PROTO_TCP)
			return REASON_FRAGMENT;
		return 0;
	}
	if (off)
		p->fragment = FRAGMENT_FIRST;
	return parse_transport(skb, p);
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	__u8 h[40];
	__u8 next;
	int i;
	if (load(skb, at, h, 40))
		return REASON_HEADER;
	p->judged = at + 40;
	p->end = at + 40 + ((__u32)h[4] << 8 | h[5]);
	if (h[0] >> 4 != 6 || p->end > skb->len)
		return REASON_HEADER;
	p->family = 6;
	next = h[6];
	p->hops = h[7];
	__builtin_memcpy(p->source, h + 8, ADDRESS);
	__builtin_memcpy(p->destination, h + 24, ADDRESS);
	if (is_mapped(p->source) || is_mapped(p->destination)) {
		p->protocol = next;
		return REASON_MAPPED;
	}
	at += 40;
	for (i = 0; i <= MAX_EXTENSIONS; i++) {
		__u32 size;
		p->protocol = next;
		switch (next) {
		case EXT_ROUTING:
			return REASON_ROUTING;
		case EXT_HOP_BY_HOP:
			if (i) /* only the first may be one */
				return REASON_EXTENSION;
			break;
		case EXT_FRAGMENT:
		case EXT_AUTH:
		case EXT_DESTINATION:
			break;
		default:
			p->transport = p->judged = at;
			return parse_transport(skb, p);
		}
		if (i == MAX_EXTENSIONS || load(skb, at, h, 8))
			return REASON_EXTENSION;
		size = next == EXT_FRAGMENT ? 8 : next == EXT_AUTH ? ((__u32)h[1] + 2) * 4 : ((__u32)h[1] + 1) * 8;
		if (at + size > p->end)
			return REASON_EXTENSION;
		if (next == EXT_FRAGMENT) {
			__u32 off = (__u32)h[2] << 8 | h[3];
			if (p->fragment) /* one is enough for everybody */
				return REASON_EXTENSION;
			p->fragment_id = (__u32)h[4] << 24 | (__u32)h[5] << 16 | (__u32)h[6] << 8 | h[7];
			if (off & 0xfff8) {
				p->fragment = FRAGMENT_LATER;
				p->judged = at + size;
				return 0;
			}
			if (off & 1)
				p->fragment = FRAGMENT_FIRST;
		}
		next = h[0];
		at += size;
	}
	return REASON_EXTENSION;
}

/* parse reads a frame. Beside a reason, what was read until then stands. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	__u8 h[16];
	__u32 at = 14, tags = 0;
	int i;
	if (skb->len < 14 || load(skb, 0, h, 14))
		return REASON_RUNT;
	__builtin_memcpy(p->destination_mac, h, 6);
	__builtin_memcpy(p->source_mac, h + 6, 6);
	p->ethertype = (__u16)h[12] << 8 | h[13];
	p->judged = 14;
	if (skb->vlan_present)
		p->vlan[tags++] = skb->vlan_tci;
	for (i = 0; i < 3; i++) {
		if (p->ethertype != ETH_VLAN && p->ethertype != ETH_QINQ && p->ethertype != ETH_QINQ_OLD)
			break;
		if (tags >= 2)
			return REASON_VLAN;
		if (load(skb, at, h, 4))
			return REASON_RUNT;
		if (tags)
			p->vlan[1] = (__u16)h[0] << 8 | h[1];
		else
			p->vlan[0] = (__u16)h[0] << 8 | h[1];
		tags++;
		p->ethertype = (__u16)h[2] << 8 | h[3];
		p->judged = at += 4;
	}
	switch (p->ethertype) {
	case ETH_IPV4:
		return parse_ipv4(skb, p, at);
	case ETH_IPV6:
		return parse_ipv6(skb, p, at);
	case ETH_ARP:
		/* Ethernet and IPv4, a request or an answer: there is no other here. */
		if (skb->len < at + 28 || load(skb, at, h, 8))
			return REASON_ARP;
		if (h[0] || h[1] != 1 || h[2] != 8 || h[3] || h[4] != 6 || h[5] != 4 || h[6] || (h[7] != 1 && h[7] != 2))
			return REASON_ARP;
		if (load(skb, at + 14, h, 4) || load(skb, at + 24, h + 4, 4))
			return REASON_ARP;
		p->judged = at + 28;
		from_ipv4(p->source, *(__u32 *)h);
		from_ipv4(p->destination, *(__u32 *)(h + 4));
		return 0;
	}
	return REASON_ETHERTYPE;
}

/* What of the kernel's own description of a frame says where a checksum is missing. */
struct sk_buff___offload {
	__u8 ip_summed : 2;
	__u16 csum_start;
	__u16 csum_offset;
	unsigned char *head;
	unsigned char *data;
} __attribute__((preserve_access_index));

#define CHECKSUM_PARTIAL 3

/* rewritten reports whether the host has been asked to write a checksum upon bytes by
 * which a frame is judged. The guest says where checksums stand, and the last device
 * on the way writes them, behind all filters: two bytes of the guest's choice, since
 * it chooses what is summed. */
static __always_inline int rewritten(struct __sk_buff *skb, const struct packet *p)
{
	struct sk_buff___offload *s = (void *)skb;
	unsigned char *head, *data;
	__u16 start, offset;
	if (BPF_CORE_READ_BITFIELD_PROBED(s, ip_summed) != CHECKSUM_PARTIAL)
		return 0;
	if (bpf_core_read(&start, sizeof(start), &s->csum_start) || bpf_core_read(&offset, sizeof(offset), &s->csum_offset) ||
	    bpf_core_read(&head, sizeof(head), &s->head) || bpf_core_read(&data, sizeof(data), &s->data))
		return 1;
	return (__s64)start + offset < (__s64)(data - head) + p->judged;
}
