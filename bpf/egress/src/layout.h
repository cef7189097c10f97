/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright the Provost authors. */
/* Layouts that the programs share with Go. Addresses have 16 bytes; those of IPv4
 * stand as ::ffff:a.b.c.d, so that one table holds both. Ports and numbers are in
 * the order of the machine. */
#pragma once

#include <linux/bpf.h>

#define ADDRESS 16
#define DNS_BYTES 1232

/* Why a frame was not let through. Part of the format: Go names them. */
enum reason {
	REASON_NONE,
	REASON_LIST,	  /* the policies do not allow its destination */
	REASON_CUT,	  /* the domain is cut off */
	REASON_RUNT,	  /* too short for an Ethernet header */
	REASON_VLAN,	  /* more tags than two */
	REASON_MAC,	  /* not from the interface's own address */
	REASON_ETHERTYPE, /* neither ARP nor IP */
	REASON_ARP,	  /* malformed */
	REASON_HEADER,	  /* malformed or contradictory IP header */
	REASON_OPTIONS,	  /* IPv4 options, which can hold another destination */
	REASON_EXTENSION, /* too many extension headers, or an unknown order */
	REASON_ROUTING,	  /* IPv6 routing header, which can hold another destination */
	REASON_TRANSPORT, /* the header with the ports is cut short */
	REASON_FRAGMENT,  /* a later fragment whose first was not seen, or was refused */
	REASON_MAPPED,	  /* an IPv4 address in an IPv6 header */
	REASON_RESOLVER,  /* sent in the name of a resolver */
	REASON_TABLE,	  /* no table: nothing is known to be allowed */
	REASON_CHECKSUM,  /* a checksum that is left to the host would be written upon what was judged */
	REASONS,
};

enum event_kind {
	EVENT_DENIED = 1,
	EVENT_AUDITED, /* would have been denied, by policies that only tell */
	EVENT_OUT,     /* first packet of a flow that the guest began */
	EVENT_IN,      /* first packet of one that others began */
	EVENT_DNS,     /* an answer to a question that was seen */
};

/* Counters of one tap. Reasons of frames denied stand behind them. */
enum counter {
	COUNT_OUT_PACKETS,
	COUNT_OUT_BYTES,
	COUNT_IN_PACKETS,
	COUNT_IN_BYTES,
	COUNT_LOST,	  /* events without room in the ring */
	COUNT_SUPPRESSED, /* events beyond the rate of a tap */
	COUNT_AUDITED,
	COUNT_CUT_IN,	  /* to the guest, while it was cut off */
	COUNT_DNS_LONG,	  /* answers longer than what is read */
	COUNT_DENIED,	  /* + reason */
	COUNTERS = COUNT_DENIED + REASONS,
};

/* One generation of what the policies say. */
struct config {
	__u32 enforce; /* bits of the policies that deny */
	__u32 audit;   /* and of those that only tell */
	__u8 mac[6];
	__u8 check_mac;
	__u8 unused;
	__u64 revision; /* of the compiled policies, for whoever adopts it */
};

struct prefix {
	__u32 bits;
	__u8 address[ADDRESS];
};

/* What the policies say of a prefix: bits of those that do not allow it. */
struct rule {
	__u64 expires; /* on the boot clock; 0: never */
	__u32 deny;
	__u32 hard;	  /* of these, those that name it: no replies go there either */
	__u32 deny_after; /* the same once it has expired */
	__u32 hard_after;
	__u32 number;
	__u32 ports; /* whether ports of it are judged by themselves */
};

struct port_key {
	__u32 number; /* of the rule */
	__u16 port;
	__u8 protocol;
	__u8 unused;
};

struct port_rule {
	__u32 deny;
	__u32 hard;
	__u32 deny_after; /* once the rule of the prefix has expired */
	__u32 hard_after;
};

struct flow {
	__u8 remote[ADDRESS];
	__u8 local[ADDRESS];
	__u16 remote_port;
	__u16 local_port;
	__u8 protocol;
	__u8 unused[3];
};

/* Denied frames are summed by what was tried. */
struct denied {
	struct flow flow;
	__u32 rule;
	__u16 ethertype;
	__u8 reason;
	__u8 audited;
};

struct counts {
	__u64 first; /* on the boot clock */
	__u64 last;
	__u64 packets;
	__u64 bytes;
};

struct fragment {
	__u8 source[ADDRESS];
	__u8 destination[ADDRESS];
	__u32 id;
	__u8 protocol;
	__u8 unused[3];
};

struct question {
	__u8 remote[ADDRESS];
	__u8 local[ADDRESS];
	__u16 port;
	__u16 id;
};

struct bucket {
	__u64 second;
	__u64 used;
};

struct event {
	__u64 time; /* on the boot clock */
	struct flow flow;
	__u32 rule;
	__u32 policies; /* bits of those that deny it */
	__u32 length;
	__u16 ethertype;
	__u16 vlan[2];
	__u8 source_mac[6];
	__u8 destination_mac[6];
	__u8 kind;
	__u8 reason;
	__u8 family; /* 4, 6 or 0 */
	__u8 tcp_flags;
	__u8 fragment; /* 0 whole, 1 first, 2 later */
	__u8 outbound;
	__u16 unused;
	__u32 unused2;
};

struct dns_event {
	struct event head;
	__u32 length;
	__u8 payload[DNS_BYTES];
	__u32 unused;
};
