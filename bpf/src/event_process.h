/* SPDX-License-Identifier: GPL-2.0 */
/* Events about processes. */
#pragma once

#include "event.h"

/* Strings follow: filename, arguments, path (leaf first), working directory
 * (leaf first), place of the mount in its file system (leaf first). */
struct event_exec {
	struct event_head h;
	struct event_task t;
	__u64 dev;
	__u64 ino;
	__u64 size;
	__s64 mtime;
	__s64 ctime;
	__u64 args_total; /* in a ring: ^ args_len */
	__u32 mode;
	__u32 nlink;
	__u32 uid, gid; /* of the file */
	__u16 path_len, cwd_len, filename_len, args_len;
	__u16 outer_len; /* how much of path, at its end, lies outside the mount */
	__u16 place_len;
	__u32 gained; /* GAINED bits */
	__u32 magic, doubt; /* struct origin */
};

enum gained {
	GAINED_UID = 1,
	GAINED_GID = 2,
	GAINED_CAPS = 4,
	GAINED_COMPAT = 8, /* by a 32-bit call */
};

struct event_fork {
	struct event_head h;
	struct event_task t; /* of the child */
};

struct event_exit {
	struct event_head h; /* arg: status as wait(2) reports it */
	__u64 peak; /* largest resident set, pages */
};

/* Old credentials, where known is 1; the new ones are in t. */
struct event_creds {
	struct event_head h; /* arg: number of the system call */
	struct event_task t;
	__u32 uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
	__u64 cap_effective, cap_permitted, cap_inheritable;
	__u64 new_permitted, new_inheritable;
	__u32 known;
	__u32 groups; /* 1: the supplementary groups changed */
};

struct event_comm {
	struct event_head h;
	char before[16];
	char after[16];
};

struct event_namespace {
	struct event_head h; /* arg: CLONE_NEW bits of what changed */
	__u32 mnt, pid, net, uts, ipc, cgroup, time, user;
	__u32 call; /* number of the system call */
	__u32 pad;
};

/* An act upon another process. */
struct event_target {
	struct event_head h;
	__u64 start; /* of the target */
	__u32 tgid, tid;
	__u32 how; /* enum trace_how, or the signal's number */
	__u32 code;
	__u64 request; /* of ptrace */
	__u64 address;
	char comm[16];
};

enum trace_how {
	TRACE_ATTACH = 1,
	TRACE_SEIZE,
	TRACE_ME,
	TRACE_REQUEST,
	TRACE_VM_WRITE,
	TRACE_VM_READ,
	TRACE_MEM,
	TRACE_GETFD,
	TRACE_OTHER,
};

/* A control group that was made; its path follows. Or one that the process of
 * the head moved to. */
struct event_cgroup {
	struct event_head h; /* arg: 1 moved */
	__u64 id;
	__u16 path_len;
	__u16 pad[3];
};
