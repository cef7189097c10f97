/* SPDX-License-Identifier: GPL-2.0 */
/* What the programs put into the rings. Package bpf has the same layouts in Go
 * and a test that compares the two through BTF. Integers are in the machine's
 * byte order: a ring never leaves its kernel. */
#pragma once

#include <linux/types.h>

/* Numbers are of this program's run only: nothing outside reads a ring. */
enum event_type {
	EV_NONE = 0,
	EV_EXEC,
	EV_FORK,
	EV_EXIT,
	EV_CREDS,
	EV_COMM,
	EV_CHROOT,
	EV_NAMESPACE,
	EV_SIGNAL,
	EV_TRACE,
	EV_CGROUP, /* a note for the agent, not sealed */

	EV_CREATE,
	EV_WRITE,
	EV_CLOSE,
	EV_RENAME,
	EV_UNLINK,
	EV_TRUNCATE,
	EV_CHMOD,
	EV_CHOWN,
	EV_LINK,
	EV_XATTR,
	EV_ATTRIBUTES,
	EV_UTIME,
	EV_MOUNT,
	EV_UNMOUNT,
	EV_PIVOT, /* sealed as a change of the root */

	EV_CONNECT,
	EV_ACCEPT,
	EV_LISTEN,
	EV_BIND,
	EV_SEND,
	EV_FLOW,
	EV_RAW,
	EV_UNIX,
	EV_DNS,

	EV_MAP,
	EV_PROTECT,
	EV_MEMFD,
	EV_ALLOCATE,

	EV_MODULE_LOAD,
	EV_MODULE_UNLOAD,
	EV_PARAM,
	EV_BPF,
	EV_PERF,
	EV_KEXEC,
	EV_USERFAULT,
	EV_URING,
	EV_AUTH,
	EV_TAMPER,
	EV_AGGREGATE, /* a process went over its budget, or came back */

	EV_TYPES = 64,
};

enum drop_reason {
	DROP_NONE = 0,
	DROP_RING, /* no room in the ring */
	DROP_NESTED, /* no scratch buffer: programs interrupted each other too deep */
	DROP_FAULT, /* kernel memory could not be read */
	DROP_MAP, /* no room in a map that the event needs */
	DROP_REASONS = 8,
};

enum event_flag {
	FL_PATH_TRUNC = 1, /* path incomplete on the root's side */
	FL_PATH2_TRUNC = 2,
	FL_DETACHED = 4, /* the walk ended outside the mount namespace's tree */
	FL_DELETED = 8, /* the file has no name any more */
	FL_USER_PATH = 16, /* names as the process passed them: directory and name */
	FL_ARGS_TRUNC = 32,
	FL_SCRIPT = 64, /* exec: filename names a script, the image is its interpreter */
	FL_DETACHED2 = 128,
	FL_NOTE = 256, /* for the agent alone: outside the sequence */
	FL_COMPAT = 512, /* by a 32-bit call or image */
	FL_IO_WORKER = 1024, /* by a worker of io_uring for its process */
	FL_MEMORY = 2048, /* memfd */
	FL_TEMPORARY = 4096, /* O_TMPFILE */
	FL_REFUSED = 8192, /* by the probe */
	FL_RESULT = 16384, /* the result of the act is known: arg of the head */
	FL_HEAVY = 32768, /* of a process beyond its budget: gives way to others' */
};

/* Head of every event. The first FRONT bytes go into a ring as they are; of the
 * rest of the event's fixed part, in words of 32 bits, only those that are not
 * zero (see pack.h), so fields are to be such that they often are. */
struct event_head {
	__u64 mask; /* which words are there, from bit 0, and a bit more where they end */
	__u64 time; /* CLOCK_BOOTTIME, nanoseconds */
	__u8 type;
	__u8 ring; /* 0 critical, 1 bulk: the one it was put into */
	__u16 cpu;
	__u32 seq; /* low half; on this ring and CPU, taken before the place in the ring */

	__u64 start; /* of the thread group leader, same clock */
	__u32 tgid;
	__u32 tid; /* in a ring: ^ tgid */
	__u32 euid;
	__u32 mntns;
	__u32 arg; /* by type; with FL_RESULT the error number */
	__u16 flags;
	__u16 pad;
};

#define FRONT 24

/* What exec, fork and the start-up listing tell about a process. In a ring, of
 * exec and fork, its numbers stand as what differs from the head (pack_task). */
struct event_task {
	__u64 start;
	__u64 parent_start;
	__u64 cgroup;
	__u64 cap_effective;
	__u32 tgid;
	__u32 ppid;
	__u32 uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
	__u32 loginuid, sessionid;
	__u32 mntns;
	__u32 flags; /* bit 0: kernel thread; above: number of its image, which grows */
	char comm[16];
};

/* Counters of one CPU, in a map that user space reads through mmap. */
struct cpu_stats {
	__u64 seq[2]; /* next sequence of each ring */
	__u64 own[EV_TYPES]; /* events of the agent itself, left out */
	__u64 dropped; /* sum of drops: while it stands still there is nothing to read */
	__u64 drops[2][EV_TYPES][DROP_REASONS]; /* by the ring that gave the sequence */
	__u64 woken; /* time of the newest forced wake-up */
	__u64 wakes; /* how many there were */
	__u64 bytes[2]; /* put into each ring */
	__u64 notes; /* notes that found no room */
	__u64 folded[EV_TYPES]; /* acts that went into aggregates */
};

/* Optional classes, bits of config.classes. */
enum optional {
	OPT_SIGNAL = 1,
	OPT_UNIX = 2,
	OPT_DNS = 4,
	OPT_COMM = 8,
};

/* What must not change: user space writes it once, before any program is there,
 * and then the map is frozen; no program may write it, the verifier sees to that. */
struct config {
	__u32 self; /* the agent's tgid */
	__u32 classes; /* optional ones that are wanted */
	__u64 allocate; /* bytes; growth from here on is told; 0: none */
	__u64 budget; /* acts upon files, networks and memory that a process may do in a second; 0: any number */
};

/* What only programs write. */
struct course {
	__u32 canary; /* the child that acts for the agent */
	__u32 down; /* 1: the first process has become a program that takes the machine down */
	__u64 since; /* when the canary began */
	__u64 image; /* inode of the agent's executable, an address */
	__u32 acts[EV_TYPES]; /* what this canary has done */
};

/* What the agent changes while it runs. */
struct switches {
	__u32 protect; /* 1: acts against the agent are refused */
	__u32 canary; /* 1: the next child that the agent makes is its canary */
};

/* Who did what to what, for sums. */
struct sum_key {
	__u64 start;
	__u64 object; /* socket, inode of the directory, or protections before and after */
	__u8 address[16];
	__u32 tgid;
	__u32 place; /* port, or device */
	__u16 protocol;
	__u8 type; /* enum event_type */
	__u8 layout; /* enum sum_layout: of the event below */
	__u32 netns;
};

enum sum_layout {
	SUM_FLOW = 1, /* event_net */
	SUM_NET,
	SUM_FILE, /* event_file, its path that of the directory */
	SUM_HEAD, /* only a head */
	SUM_MEMORY, /* event_memory, without a path */
	SUM_ENTRIES, /* nothing: how many destinations the map has */
};

#define SUM_EVENT_BYTES 512

struct sum {
	__u64 count;
	__u64 bytes;
	__u64 first, last; /* times */
	__u32 flags; /* of the event */
	__u32 pad;
	char event[SUM_EVENT_BYTES];
};
