/* SPDX-License-Identifier: GPL-2.0 */
/* What the programs put into the rings. Package bpf has the same layouts in Go
 * and a test that compares the two through BTF. Integers are in the machine's
 * byte order: a ring never leaves its kernel. */
#pragma once

#include <linux/types.h>

enum event_type {
	EV_NONE = 0,
	EV_EXEC,
	EV_FORK,
	EV_EXIT,
	EV_CREATE,
	EV_WRITE,
	EV_RENAME,
	EV_UNLINK,
	EV_TRUNCATE,
	EV_CHMOD,
	EV_CHOWN,
	EV_LINK,
	EV_CONNECT,
	EV_TYPES = 16,
};

enum drop_reason {
	DROP_NONE = 0,
	DROP_RING, /* no room in the ring */
	DROP_NESTED, /* no scratch buffer: programs interrupted each other too deep */
	DROP_FAULT, /* kernel memory could not be read */
	DROP_REASONS = 4,
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
};

/* Head of every event. */
struct event_head {
	__u16 len; /* of the whole event */
	__u8 type;
	__u8 ring; /* 0 critical, 1 bulk */
	__u16 flags;
	__u16 cpu;
	__u64 seq; /* on this ring and CPU, taken before the place in the ring */
	__u64 time; /* CLOCK_BOOTTIME, nanoseconds */
	__u64 start; /* of the thread group leader, same clock */
	__u32 tgid;
	__u32 tid;
	__u32 euid;
	__u32 mntns;
	char comm[16]; /* a process may change it at any time */
};

/* What exec, fork and the start-up listing tell about a process. */
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
	__u32 flags; /* bit 0: kernel thread */
	char comm[16];
};

/* Strings follow: path (leaf first), working directory (leaf first),
 * filename, arguments. */
struct event_exec {
	struct event_head h;
	struct event_task t;
	__u64 dev;
	__u64 ino;
	__u64 size;
	__u64 args_total;
	__u32 mode;
	__u32 nlink;
	__u16 path_len, cwd_len, filename_len, args_len;
};

struct event_fork {
	struct event_head h;
	struct event_task t; /* of the child */
};

struct event_exit {
	struct event_head h;
	__u32 status; /* as wait(2) reports it */
	__u32 pad;
};

/* One file; strings: path. */
struct event_file {
	struct event_head h;
	__u64 dev;
	__u64 ino;
	__u64 size;
	__u32 mode;
	__u32 uid, gid;
	__u32 arg; /* chmod: new mode; mknod: type and mode */
	__u64 arg2; /* truncate: new length; chown: new gid<<32|uid */
	__u16 path_len, name_len; /* name_len: only with FL_USER_PATH */
	__u32 how;
};

/* Two paths; strings: old, new. With FL_USER_PATH: old directory, old name,
 * new directory, new name. */
struct event_rename {
	struct event_head h;
	__u64 dev;
	__u64 ino;
	__u64 size;
	__u64 replaced_ino; /* 0: the new name was free */
	__u32 mode;
	__u32 replaced_mode;
	__u32 uid, gid;
	__u32 flags; /* of renameat2 */
	__u16 old_len, new_len;
	__u16 old_name_len, new_name_len;
	__u32 pad;
};

struct event_net {
	struct event_head h;
	__u8 saddr[16];
	__u8 daddr[16];
	__u16 family;
	__u16 protocol;
	__u16 sport; /* host byte order; 0: not chosen yet */
	__u16 dport;
};

/* Counters of one CPU, in a map that user space reads through mmap. */
struct cpu_stats {
	__u64 seq[2]; /* next sequence of each ring */
	__u64 own[EV_TYPES]; /* events of the agent itself, left out */
	__u64 drops[EV_TYPES][DROP_REASONS];
	__u64 woken; /* time of the newest forced wake-up */
	__u64 pad;
};

struct config {
	__u32 self; /* the agent's tgid */
	__u32 quiet; /* 1 while the agent's own connections are left out */
};

enum write_how {
	HOW_WRITE = 0,
	HOW_COPY = 1,
	HOW_FALLOCATE = 2,
};
