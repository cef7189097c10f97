// SPDX-License-Identifier: GPL-2.0
// Copyright the Provost authors.
/* The guard of one tap device. What comes into the tap is what the guest sends:
 * from_guest judges it by the policies. to_guest remembers what others begin, so
 * that replies may go out. While the domain is cut off, both let through only what
 * the list of the cut names. Neither ever changes a frame. */
#include "layout.h"
#include "maps.h"
#include "parse.h"

#define SECOND 1000000000ULL
#define PASS -1 /* whoever else filters here may still refuse it */
#define DROP 2

static __always_inline void count(__u32 which, __u64 n)
{
	__u64 *c = bpf_map_lookup_elem(&counters, &which);
	if (c)
		*c += n;
}

/* rated takes one event out of the tap's second. Two processors may both begin a
 * second; what that lets through more is bounded by their number. */
static __always_inline int rated(__u64 now)
{
	__u32 zero = 0;
	struct bucket *b = bpf_map_lookup_elem(&rate, &zero);
	if (!b)
		return 0;
	if (now - b->second >= SECOND) {
		b->second = now;
		b->used = 0;
	}
	if (b->used >= EVENTS_A_SECOND) {
		count(COUNT_SUPPRESSED, 1);
		return 0;
	}
	__sync_fetch_and_add(&b->used, 1);
	return 1;
}

static __always_inline void flow_of(const struct packet *p, int outbound, struct flow *f)
{
	__builtin_memset(f, 0, sizeof(*f));
	f->protocol = p->protocol;
	if (outbound) {
		__builtin_memcpy(f->remote, p->destination, ADDRESS);
		__builtin_memcpy(f->local, p->source, ADDRESS);
		f->remote_port = p->destination_port;
		f->local_port = p->source_port;
	} else {
		__builtin_memcpy(f->remote, p->source, ADDRESS);
		__builtin_memcpy(f->local, p->destination, ADDRESS);
		f->remote_port = p->source_port;
		f->local_port = p->destination_port;
	}
	if (p->protocol == PROTO_ICMP || p->protocol == PROTO_ICMPV6) {
		/* The guest's side is the type that it sends: of a question that came, the
		 * type of its answer. */
		__u16 type = p->source_port;
		if (!outbound) {
			if (p->protocol == PROTO_ICMP)
				type = type == 8 ? 0 : type == 0 ? 8 : type | 0x100;
			else
				type = type == 128 ? 129 : type == 129 ? 128 : type == 135 ? 136 : type == 136 ? 135 : type | 0x100;
		}
		f->local_port = type;
		f->remote_port = p->destination_port;
	}
}

static __always_inline void fill(struct event *e, struct __sk_buff *skb, const struct packet *p, const struct flow *f, __u64 now)
{
	e->time = now;
	e->flow = *f;
	e->length = skb->len;
	e->ethertype = p->ethertype;
	e->vlan[0] = p->vlan[0];
	e->vlan[1] = p->vlan[1];
	__builtin_memcpy(e->source_mac, p->source_mac, 6);
	__builtin_memcpy(e->destination_mac, p->destination_mac, 6);
	e->family = p->family;
	e->tcp_flags = p->tcp_flags;
	e->fragment = p->fragment;
	e->unused = 0;
	e->unused2 = 0;
	e->rule = 0;
	e->policies = 0;
	e->reason = 0;
}

static __always_inline void tell(struct __sk_buff *skb, const struct packet *p, const struct flow *f, __u64 now, __u8 kind, __u8 outbound)
{
	struct event *e;
	if (!rated(now))
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(COUNT_LOST, 1);
		return;
	}
	fill(e, skb, p, f, now);
	e->kind = kind;
	e->outbound = outbound;
	bpf_ringbuf_submit(e, 0);
}

/* refuse counts a frame that is denied, or would be, and tells the first of each
 * flow; the rest is read out of the sums. */
static __always_inline void refuse(struct __sk_buff *skb, const struct packet *p, __u64 now, __u8 reason, __u32 rule, __u32 policies, __u8 audited)
{
	struct denied k = {};
	struct counts *c, first = {now, now, 1, skb->len};
	struct event *e;
	count(audited ? COUNT_AUDITED : COUNT_DENIED + reason, 1);
	flow_of(p, 1, &k.flow);
	k.rule = rule;
	k.ethertype = p->ethertype;
	k.reason = reason;
	k.audited = audited;
	c = bpf_map_lookup_elem(&refused, &k);
	if (c) {
		c->last = now;
		__sync_fetch_and_add(&c->packets, 1);
		__sync_fetch_and_add(&c->bytes, skb->len);
		return;
	}
	bpf_map_update_elem(&refused, &k, &first, BPF_NOEXIST);
	if (!rated(now))
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(COUNT_LOST, 1);
		return;
	}
	fill(e, skb, p, &k.flow, now);
	e->kind = audited ? EVENT_AUDITED : EVENT_DENIED;
	e->outbound = 1;
	e->reason = reason;
	e->rule = rule;
	e->policies = policies;
	bpf_ringbuf_submit(e, 0);
}

/* on_cut_list reports whether a cut-off domain may exchange frames with somebody. */
static __always_inline int on_cut_list(const __u8 *address)
{
	struct prefix k = {.bits = 128};
	__builtin_memcpy(k.address, address, ADDRESS);
	return bpf_map_lookup_elem(&cut_list, &k) != 0;
}

/* passes_cut judges a frame of a domain that is cut off, by who is on its other
 * side; neighbour discovery by whom it asks for. */
static __always_inline int passes_cut(struct __sk_buff *skb, const struct packet *p, int reason, int outbound)
{
	if (reason)
		return 0;
	if (on_cut_list(outbound ? p->destination : p->source))
		return 1;
	if (outbound && p->protocol == PROTO_ICMPV6 && p->source_port == 135 && p->hops == 255 && !p->fragment) {
		__u8 target[ADDRESS];
		return !load(skb, p->transport + 8, target, ADDRESS) && on_cut_list(target);
	}
	return 0;
}

static __always_inline int is_cut(void)
{
	__u32 zero = 0;
	__u32 *on = bpf_map_lookup_elem(&cut, &zero);
	return !on || *on;
}

/* essential tells what a network needs to work at all, and which leaves the link in
 * no other way: it goes out whatever the lists say. */
static __always_inline int essential(const struct packet *p)
{
	const __u8 *d = p->destination;
	int local = d[0] == 0xff && d[1] == 2; /* of the link, to many */
	if (p->ethertype == ETH_ARP)
		return 1;
	if (p->fragment)
		return 0;
	if (p->family == 4) {
		__u32 to = *(const __u32 *)(d + 12);
		if (p->protocol == PROTO_UDP)
			return p->source_port == 68 && p->destination_port == 67 && to == 0xffffffff;
		return p->protocol == PROTO_IGMP && p->hops == 1 && (to & bpf_htonl(0xffffff00)) == bpf_htonl(0xe0000000);
	}
	if (p->protocol == PROTO_UDP)
		return p->source_port == 546 && p->destination_port == 547 && local;
	if (p->protocol != PROTO_ICMPV6)
		return 0;
	switch (p->source_port) {
	case 133: /* router solicitation */
	case 135: /* neighbour solicitation and advertisement */
	case 136:
		return p->hops == 255 && (local || (d[0] == 0xfe && (d[1] & 0xc0) == 0x80));
	case 131: /* reports of listeners */
	case 132:
	case 143:
		return p->hops == 1 && local;
	}
	return 0;
}

/* is_reply reports whether a packet belongs to a flow that somebody else began. No
 * answer begins a connection. */
static __always_inline int is_reply(const struct packet *p, const struct flow *f, __u64 now)
{
	__u64 *last = bpf_map_lookup_elem(&inbound, f), idle;
	if (!last || (p->protocol == PROTO_TCP && (p->tcp_flags & 0x17) == 2))
		return 0;
	idle = f->protocol == PROTO_TCP || f->protocol == PROTO_SCTP ? 86400 * SECOND : f->protocol == PROTO_UDP ? 180 * SECOND : 30 * SECOND;
	if (now > *last && now - *last > idle)
		return 0;
	if (f->protocol == PROTO_TCP || f->protocol == PROTO_SCTP)
		*last = now; /* others live by what comes in only */
	return 1;
}

/* judge returns the policies that deny a packet, and the rule it is about. */
static __always_inline int judge(const struct packet *p, const struct flow *f, __u32 generation, __u64 now, int reply, __u32 *rule, __u32 *policies)
{
	struct prefix k = {.bits = 128};
	struct port_key pk = {};
	struct port_rule *pr;
	struct rule *r;
	void *table = bpf_map_lookup_elem(&prefixes, &generation);
	__u32 deny, hard;
	int expired = 0;
	if (!table)
		return REASON_TABLE;
	__builtin_memcpy(k.address, f->remote, ADDRESS);
	r = bpf_map_lookup_elem(table, &k);
	if (!r)
		return REASON_TABLE;
	*rule = r->number;
	deny = r->deny;
	hard = r->hard;
	if (r->expires && r->expires <= now) {
		expired = 1;
		deny = r->deny_after;
		hard = r->hard_after;
	}
	if (r->ports && p->fragment != FRAGMENT_LATER && p->protocol != PROTO_ICMP && p->protocol != PROTO_ICMPV6) {
		pk.number = r->number;
		pk.port = p->destination_port;
		pk.protocol = p->protocol;
		table = bpf_map_lookup_elem(&ports, &generation);
		if (!table)
			return REASON_TABLE;
		pr = bpf_map_lookup_elem(table, &pk);
		if (pr) {
			deny = expired ? pr->deny_after : pr->deny;
			hard = expired ? pr->hard_after : pr->hard;
		}
	}
	*policies = reply ? hard : deny;
	return *policies ? REASON_LIST : 0;
}

/* later_fragment is judged as its first one was. */
static __always_inline void fragment_of(const struct packet *p, struct fragment *k)
{
	__builtin_memset(k, 0, sizeof(*k));
	__builtin_memcpy(k->source, p->source, ADDRESS);
	__builtin_memcpy(k->destination, p->destination, ADDRESS);
	k->id = p->fragment_id;
	/* In IPv6 only the first fragment need say which protocol it is. */
	k->protocol = p->family == 4 ? p->protocol : 0;
}

static __always_inline void asked(struct __sk_buff *skb, const struct packet *p, __u64 now)
{
	struct question q = {};
	__u8 id[2];
	if (p->protocol != PROTO_UDP || p->destination_port != 53 || p->fragment || !bpf_map_lookup_elem(&resolvers, p->destination))
		return;
	if (p->end < p->transport + 20 || load(skb, p->transport + 8, id, 2))
		return;
	__builtin_memcpy(q.remote, p->destination, ADDRESS);
	__builtin_memcpy(q.local, p->source, ADDRESS);
	q.port = p->source_port;
	q.id = (__u16)id[0] << 8 | id[1];
	bpf_map_update_elem(&questions, &q, &now, BPF_ANY);
}

/* let_through notes what a frame that goes out begins. */
static __always_inline int let_through(struct __sk_buff *skb, const struct packet *p, const struct flow *f, int reply, __u64 now)
{
	struct counts *c, first = {now, now, 1, skb->len};
	if (p->fragment == FRAGMENT_FIRST) {
		struct fragment k;
		fragment_of(p, &k);
		bpf_map_update_elem(&fragments, &k, &now, BPF_ANY);
	}
	if (p->family && !bpf_map_lookup_elem(&sources, p->source)) {
		__u8 one = 1;
		bpf_map_update_elem(&sources, p->source, &one, BPF_ANY);
	}
	asked(skb, p, now); /* also as a reply: anybody can send in a resolver's name */
	if (reply || !p->family || p->fragment == FRAGMENT_LATER)
		return PASS;
	c = bpf_map_lookup_elem(&seen, f);
	if (c) {
		c->last = now;
		__sync_fetch_and_add(&c->packets, 1);
		__sync_fetch_and_add(&c->bytes, skb->len);
		return PASS;
	}
	bpf_map_update_elem(&seen, f, &first, BPF_NOEXIST);
	tell(skb, p, f, now, EVENT_OUT, 1);
	return PASS;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

SEC("tc")
int from_guest(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow f;
	struct config *c;
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 zero = 0, generation, rule = 0, policies = 0;
	__u32 *h;
	int reason, reply = 0;
	reason = parse(skb, &p);
	count(COUNT_OUT_PACKETS, 1);
	count(COUNT_OUT_BYTES, skb->len);
	if (rewritten(skb, &p))
		reason = REASON_CHECKSUM;
	if (is_cut()) {
		if (passes_cut(skb, &p, reason, 1))
			return PASS;
		refuse(skb, &p, now, REASON_CUT, 0, 0, 0);
		return DROP;
	}
	h = bpf_map_lookup_elem(&head, &zero);
	if (!h)
		return DROP;
	generation = *h;
	c = bpf_map_lookup_elem(&configs, &generation);
	if (!c)
		return DROP;
	flow_of(&p, 1, &f);
	/* These two hold without any policy, so also of what is not understood. */
	if (c->check_mac && reason != REASON_CHECKSUM && !same_mac(p.source_mac, c->mac))
		reason = REASON_MAC;
	if (reason != REASON_CHECKSUM && reason != REASON_MAC && p.family && bpf_map_lookup_elem(&resolvers, p.source))
		reason = REASON_RESOLVER;
	if (!reason && p.fragment == FRAGMENT_LATER) {
		struct fragment k;
		__u64 *first;
		fragment_of(&p, &k);
		first = bpf_map_lookup_elem(&fragments, &k);
		if (!first || now - *first > 60 * SECOND)
			reason = REASON_FRAGMENT;
	} else if (!reason && p.family) {
		reply = is_reply(&p, &f, now);
		if ((c->enforce | c->audit) && !essential(&p))
			reason = judge(&p, &f, generation, now, reply, &rule, &policies);
	}
	if (!reason)
		return let_through(skb, &p, &f, reply, now);
	/* What nobody's list decided is denied as soon as there is a list at all. */
	if (reason != REASON_LIST)
		policies = c->enforce | c->audit;
	if (policies & c->enforce || reason == REASON_RESOLVER || reason == REASON_MAC || reason == REASON_CHECKSUM) {
		refuse(skb, &p, now, reason, rule, policies & c->enforce, 0);
		return DROP;
	}
	if (policies & c->audit)
		refuse(skb, &p, now, reason, rule, policies & c->audit, 1);
	return let_through(skb, &p, &f, reply, now);
}

/* answered hands on the answer to a question that was seen, once. */
static __always_inline void answered(struct __sk_buff *skb, const struct packet *p, const struct flow *f, __u64 now)
{
	struct question q = {};
	struct dns_event *e;
	__u64 *at;
	__u32 size;
	__u8 id[2];
	if (p->protocol != PROTO_UDP || p->source_port != 53 || p->fragment || !bpf_map_lookup_elem(&resolvers, p->source))
		return;
	if (p->end < p->transport + 20 || load(skb, p->transport + 8, id, 2))
		return;
	__builtin_memcpy(q.remote, p->source, ADDRESS);
	__builtin_memcpy(q.local, p->destination, ADDRESS);
	q.port = p->destination_port;
	q.id = (__u16)id[0] << 8 | id[1];
	at = bpf_map_lookup_elem(&questions, &q);
	if (!at || now - *at > 30 * SECOND)
		return;
	bpf_map_delete_elem(&questions, &q);
	size = p->end - p->transport - 8;
	if (size > DNS_BYTES) {
		count(COUNT_DNS_LONG, 1);
		return;
	}
	if (!rated(now))
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(COUNT_LOST, 1);
		return;
	}
	fill(&e->head, skb, p, f, now);
	e->head.kind = EVENT_DNS;
	e->head.outbound = 0;
	e->length = size;
	e->unused = 0;
	if (size < 1 || size > DNS_BYTES || load(skb, p->transport + 8, e->payload, size)) {
		bpf_ringbuf_discard(e, 0);
		return;
	}
	bpf_ringbuf_submit(e, 0);
}

/* begins reports whether a packet to the guest may begin a flow. */
static __always_inline int begins(const struct packet *p)
{
	switch (p->protocol) {
	case PROTO_TCP:
		return (p->tcp_flags & 0x17) == 2; /* SYN alone */
	case PROTO_ICMP:
		return p->source_port == 8;
	case PROTO_ICMPV6:
		return p->source_port == 128 || p->source_port == 135;
	default:
		return 1;
	}
}

SEC("tc")
int to_guest(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow f;
	__u64 now = bpf_ktime_get_boot_ns(), *last;
	int reason;
	count(COUNT_IN_PACKETS, 1);
	count(COUNT_IN_BYTES, skb->len);
	reason = parse(skb, &p);
	if (is_cut()) {
		if (passes_cut(skb, &p, reason, 0))
			return PASS;
		count(COUNT_CUT_IN, 1);
		return DROP;
	}
	/* What comes is not judged; what is not understood begins nothing. */
	if (reason || !p.family || p.fragment == FRAGMENT_LATER)
		return PASS;
	flow_of(&p, 0, &f);
	answered(skb, &p, &f, now);
	last = bpf_map_lookup_elem(&inbound, &f);
	if (last) {
		*last = now;
		return PASS;
	}
	/* What comes in a name that the guest itself has sent in may be its own, come back
	 * by a router or another tap: it would begin flows to itself that way. */
	if (!begins(&p) || bpf_map_lookup_elem(&seen, &f) || bpf_map_lookup_elem(&sources, p.source))
		return PASS;
	bpf_map_update_elem(&inbound, &f, &now, BPF_ANY);
	tell(skb, &p, &f, now, EVENT_IN, 0);
	return PASS;
}

/* What only Go reads would not stand in the debug information otherwise. */
const enum reason *reasons_told __attribute__((unused));
const enum event_kind *kinds_told __attribute__((unused));
const enum counter *counters_told __attribute__((unused));
const struct event *events_told __attribute__((unused));
const struct dns_event *answers_told __attribute__((unused));
const struct rule *rules_told __attribute__((unused));
const struct port_key *port_keys_told __attribute__((unused));
const struct port_rule *port_rules_told __attribute__((unused));

char LICENSE[] SEC("license") = "GPL";
