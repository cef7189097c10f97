/* SPDX-License-Identifier: GPL-2.0 */
/* What a thread is about to do, from where its mount is known to where it is
 * known that the act is permitted, or done. */
#pragma once

#include "file.h"

struct act {
	__u64 mnt;
	__u64 dentry; /* acted upon; 0: not known yet, or told */
	__u64 dentry2; /* rename, link: the new name */
	__u64 dir;
	__u64 text; /* symlink: what it holds */
	__u64 size; /* before */
	__u32 type;
	__u32 mode; /* create: kind; attributes: mode before */
	__u32 flags; /* rename: RENAME bits; attributes: ATTR bits */
	int nr; /* create: of the system call */
};

/* By thread. An act that fails leaves its entry until the thread's next one, or
 * its end (forget_act). Nothing may push an entry out: whoever can hold another
 * up between the two hooks could make its act disappear. Without room the act is
 * counted as lost. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct act);
} acts SEC(".maps");

static __always_inline void remember(struct act *a)
{
	__u64 key = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&acts, &key, a, BPF_ANY))
		drop_unsequenced(a->type, RING_BULK, DROP_MAP);
}

static __always_inline struct act *remembered(void)
{
	__u64 key = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&acts, &key);
}

/* forget_act belongs at the end of every thread. */
static __always_inline void forget_act(void)
{
	__u64 key = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&acts, &key);
}

static __always_inline bool by_kernel(void)
{
	return BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), flags) & PF_KTHREAD;
}

/* given_mapping says whether the kernel's functions on files are given a mapping of
 * ids as their first argument (since 5.12). */
static __always_inline bool given_mapping(void)
{
	return bpf_core_field_exists(((struct vfsmount___idmap *)0)->mnt_idmap) ||
	       bpf_core_field_exists(((struct vfsmount___users *)0)->mnt_userns);
}
