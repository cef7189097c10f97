/* SPDX-License-Identifier: GPL-2.0 */
/* What the programs read of a task that the verifier knows to be one: an
 * argument of theirs, or current_task. That is plain loads, where
 * BPF_CORE_READ calls a helper for each step; on the paths that every call,
 * fork and exec take it is most of the cost. */
#pragma once

#include "maps.h"

#ifdef OLD
/* Before 5.11 nothing gives the current task with its type. */
#define current_task() ((struct task_struct *)bpf_get_current_task())
#define field(from, member) BPF_CORE_READ(from, member)
#else
#define current_task() ((struct task_struct *)bpf_get_current_task_btf())
#define field(from, member) ((from)->member)
#endif

/* Pointers that a kernel marks as guarded by RCU may be null to its verifier,
 * so they are looked at first. */

static __always_inline __u64 start_of(struct task_struct *t)
{
	struct task_struct *leader = field(t, group_leader);

	return leader ? field(leader, start_boottime) : 0;
}

static __always_inline __u32 mount_namespace_of(struct task_struct *t)
{
	struct nsproxy *ns = field(t, nsproxy);
	struct mnt_namespace *mnt;

	if (!ns)
		return 0; /* gone in a task that exits */
	mnt = field(ns, mnt_ns);
	return mnt ? field(mnt, ns.inum) : 0;
}

static __always_inline struct user_namespace *user_namespace_of(struct task_struct *t)
{
	const struct cred *c = field(t, cred);

	return c ? field(c, user_ns) : 0;
}

/* head_of is head for such a task. */
static __always_inline void head_of(struct event_head *h, __u32 type, struct task_struct *t)
{
	const struct cred *c = field(t, cred);
	__u64 id = bpf_get_current_pid_tgid();

	h->type = type;
	h->tgid = id >> 32;
	h->tid = id;
	h->start = start_of(t);
	h->euid = c ? field(c, euid.val) : 0;
	h->mntns = mount_namespace_of(t);
}

static __always_inline __u64 capabilities(const kernel_cap_t *from)
{
	__u64 c = 0;

	bpf_core_read(&c, sizeof(c), from);
	return c;
}

static __always_inline void fill_task(struct event_task *e, struct task_struct *t)
{
	struct task_struct *parent = field(t, real_parent);
	const struct cred *c = field(t, cred);
	struct css_set *set = field(t, cgroups);

	e->start = start_of(t);
	e->tgid = field(t, tgid);
	if (parent) {
		e->parent_start = start_of(parent);
		e->ppid = field(parent, tgid);
	}
	if (c) {
		e->uid = field(c, uid.val);
		e->gid = field(c, gid.val);
		e->euid = field(c, euid.val);
		e->egid = field(c, egid.val);
		e->suid = field(c, suid.val);
		e->sgid = field(c, sgid.val);
		e->fsuid = field(c, fsuid.val);
		e->fsgid = field(c, fsgid.val);
		e->cap_effective = capabilities(&c->cap_effective);
	}
	if (set)
		e->cgroup = BPF_CORE_READ(set, dfl_cgrp, kn, id);
	e->mntns = mount_namespace_of(t);
	e->flags = (__u32)field(t, self_exec_id) << 1 | ((field(t, flags) & PF_KTHREAD) != 0);
	e->loginuid = -1;
	e->sessionid = -1;
	if (bpf_core_field_exists(t->loginuid)) {
		e->loginuid = field(t, loginuid.val);
		e->sessionid = field(t, sessionid);
	}
	bpf_core_read(&e->comm, sizeof(e->comm), &t->comm);
}
