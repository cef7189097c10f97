/* SPDX-License-Identifier: GPL-2.0 */
/* Events about sockets. */
#pragma once

#include "event.h"

struct event_net {
	struct event_head h;
	__u8 saddr[16]; /* vsock: cid in the first four, machine's order */
	__u8 daddr[16];
	__u64 cookie;
	__u64 packets;
	__u64 bytes;
	__u32 sport; /* host byte order; 0: not chosen yet */
	__u32 dport;
	__u16 protocol;
	__u8 family;
	__u8 type; /* SOCK_ number */
	__u16 bits; /* enum net_bits */
	__u16 pad;
	__u32 backlog;
	__u32 netns;
};

enum net_bits {
	NET_FAST_OPEN = 1,
	NET_FIRST = 2,
	NET_INGRESS = 4,
};

/* Address of a unix socket, exact bytes, follows. */
struct event_unix {
	struct event_head h;
	__u16 name_len;
	__u16 type;
	__u32 peer;
};

/* Data of a datagram to or from port 53 follows. */
struct event_dns {
	struct event_head h;
	__u64 cookie;
	__u8 server[16];
	__u16 family;
	__u16 data_len;
	__u16 port; /* of this side */
	__u16 answer;
	__u32 netns;
	__u32 pad;
};
