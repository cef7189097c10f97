/* SPDX-License-Identifier: GPL-2.0 */
/* Events about the kernel itself, logins, and acts against the agent. */
#pragma once

#include "event.h"

/* Strings: name, value, value before, path (leaf first). */
struct event_kernel {
	struct event_head h;
	__u64 kind; /* kind of program, of performance event, ... */
	__u64 id;
	__u64 size;
	__u64 flags;
	__u64 ino;
	__u32 dev;
	__u32 operation; /* by type */
	__u16 name_len, value_len, before_len, path_len;
	__u16 outer_len;
	__u16 signature; /* of a module: enum module_signature */
	__u16 pad[2];
};

enum module_signature {
	SIGNATURE_UNKNOWN = 0, /* the kernel does not check any */
	SIGNATURE_VALID,
	SIGNATURE_NONE, /* none, or one that the kernel does not accept */
};

/* Operations of event_kernel that are not commands of bpf(2). */
enum kernel_operation {
	KERNEL_SOCKET_FILTER = 256,
};

/* A message for audit; its text follows. */
struct event_auth {
	struct event_head h;
	__u32 sessionid;
	__u32 loginuid;
	__u16 message; /* number of the audit message */
	__u16 text_len;
	__u32 text_total;
};

struct event_tamper {
	struct event_head h;
	__u32 kind; /* enum tamper_kind */
	__u32 what; /* signal, command, ... */
	__u64 id;
	__u64 request;
	__u64 before; /* the same within a second after the last that was told, and not told */
};

enum tamper_kind {
	TAMPER_SIGNAL = 1,
	TAMPER_TRACE,
	TAMPER_BPF,
	TAMPER_FTRACE,
	TAMPER_LIMIT,
	TAMPER_SCHEDULER,
};

/* What TAMPER_SCHEDULER is about. */
enum starve {
	STARVE_SCHEDULER = 1,
	STARVE_NICE,
	STARVE_IO,
	STARVE_MEMORY,
};

/* A map that somebody besides the agent holds. */
struct held {
	__u32 id;
	__u32 count; /* descriptors */
	__u32 uses; /* those, programs, maps of maps, and the listing itself */
	__u32 pad;
};

/* Kinds of the agent's own objects. */
enum owned {
	OWNED_PROGRAM = 1,
	OWNED_MAP,
	OWNED_LINK,
};

/* A process that makes more than its budget, or no longer does. */
struct event_aggregate {
	struct event_head h; /* arg: 1 from here on its acts are folded, 0 no longer */
	__u64 count; /* folded until now */
};
