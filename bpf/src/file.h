/* SPDX-License-Identifier: GPL-2.0 */
/* What all sources of file events share. */
#pragma once

#include "budget.h"
#include "call.h"
#include "task.h"

static __always_inline bool left_out(__u32 type)
{
	struct task_struct *t = current_task();

	if (field(t, flags) & PF_KTHREAD)
		return true;
	return own(type);
}

static __always_inline struct event_file *begin_file(struct scratch *s, __u32 type)
{
	struct event_file *e = (struct event_file *)s->data;
	struct task_struct *t = current_task();

	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	s->flags = act_flags(t);
	head_of(&e->h, type, t);
	return e;
}

static __always_inline void fill_inode(struct event_file *e, struct inode *i)
{
	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	e->ino = BPF_CORE_READ(i, i_ino);
	e->size = BPF_CORE_READ(i, i_size);
	e->mode = BPF_CORE_READ(i, i_mode);
	e->uid = BPF_CORE_READ(i, i_uid.val);
	e->gid = BPF_CORE_READ(i, i_gid.val);
	e->links = BPF_CORE_READ(i, i_nlink);
	e->rdev = BPF_CORE_READ(i, i_rdev);
}

/* A file without a directory, in memory only: memfd, and what is shared
 * between processes without a name. */
static __always_inline bool in_memory(struct dentry *d)
{
	unsigned long magic;

	if (BPF_CORE_READ(d, d_parent) != d)
		return false;
	magic = BPF_CORE_READ(d, d_sb, s_magic);
	if (magic != TMPFS_MAGIC && magic != HUGETLBFS_MAGIC)
		return false;
	return (BPF_CORE_READ(d, d_inode, i_mode) & S_IFMT) == S_IFREG;
}

/* What the file systems show is not stored in them: writing such a file is an
 * act upon the kernel. */
static __always_inline bool of_kernel(struct super_block *sb)
{
	switch (BPF_CORE_READ(sb, s_magic)) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case SECURITYFS_MAGIC:
	case SELINUX_MAGIC:
	case CONFIGFS_MAGIC:
	case BINFMTFS_MAGIC:
	case ANON_INODE_FS_MAGIC: /* eventfd and its kin look like regular files on new kernels */
		return true;
	}
	return false;
}

/* What an event says beside its file. */
struct more {
	__u32 arg;
	__u32 flags;
	__u64 arg2;
	__u32 mode; /* of what does not exist yet */
	__u32 dev;
	const void *extra; /* a string, or, with extra_len, bytes */
	__u32 extra_len;
	bool of_user; /* extra is in the process's memory */
};

static __always_inline void append_extra(struct scratch *s, struct event_file *e, struct more *m)
{
	__u32 off = s->off & (DATA_BYTES - 1);
	long n;

	if (!m->extra)
		return;
	if (m->extra_len == sizeof(struct file_times)) {
		n = bpf_probe_read_kernel(&s->data[off], sizeof(struct file_times), m->extra);
		n = n ? 0 : sizeof(struct file_times);
	} else if (m->of_user) {
		n = bpf_probe_read_user_str(&s->data[off], 4096, m->extra);
	} else {
		n = bpf_probe_read_kernel_str(&s->data[off], 4096, m->extra);
	}
	if (n <= 0)
		return;
	e->extra_len = n;
	s->off = off + n;
}

/* fold counts an act upon a file, whose inode is i, where its process has gone
 * over its budget. */
static __always_inline __u32 fold(__u32 type, struct vfsmount *mnt, struct dentry *d, struct inode *i, __u64 bytes)
{
	struct bucket *b = over_budget();

	if (!b)
		return 0;
	if (!(BIT(type & (EV_TYPES - 1)) & FOLDED_TYPES))
		return weight(type);
	if (stranger(type, i) || !fold_file(b, type, mnt, BPF_CORE_READ(d, d_parent), bytes, 0))
		return weight(type);
	return FOLDED;
}

/* tell_more emits an event about one dentry seen through one mount, whose inode
 * is i; a dentry that names nothing yet (i is 0) takes its device from dir. */
static __always_inline void tell_more(__u32 type, struct vfsmount *mnt, struct dentry *d, struct inode *i,
				      struct dentry *dir, struct more *m)
{
	struct scratch *s;
	struct event_file *e;
	__u32 f;

	if (left_out(type))
		return;
	f = fold(type, mnt, d, i, 0);
	if (f == FOLDED)
		return;
	s = take(type, RING_BULK);
	if (!s)
		return;
	e = begin_file(s, type);
	s->flags |= m->flags | f;
	e->arg = m->arg;
	e->arg2 = m->arg2;
	if (i) {
		fill_inode(e, i);
		if (in_memory(d))
			s->flags |= FL_MEMORY;
		else if (!(m->flags & FL_TEMPORARY))
			note_deleted(s, d, i);
	} else {
		e->mode = m->mode;
		e->rdev = m->dev;
		if (dir)
			e->dev = BPF_CORE_READ(dir, d_inode, i_sb, s_dev);
	}
	e->path_len = walk(s, mnt, d);
	e->outer_len = e->path_len - s->inner;
	append_extra(s, e, m);
	e->place_len = walk_place(s);
	send(s, e, RING_BULK);
	give(s);
}

/* tell is tell_more with little to say. */
static __always_inline void tell(__u32 type, struct vfsmount *mnt, struct dentry *d, struct dentry *dir, __u32 arg,
				 __u64 arg2)
{
	struct more m = { .arg = arg, .arg2 = arg2 };

	tell_more(type, mnt, d, BPF_CORE_READ(d, d_inode), dir, &m);
}

static __always_inline void tell_file(__u32 type, struct file *f, struct more *m)
{
	struct dentry *d = BPF_CORE_READ(f, f_path.dentry);

	/* The file's own inode: overlayfs has others below the same path. */
	tell_more(type, BPF_CORE_READ(f, f_path.mnt), d, BPF_CORE_READ(f, f_inode), 0, m);
}

static __always_inline struct event_rename *begin_rename(struct scratch *s, __u32 type)
{
	struct event_rename *e = (struct event_rename *)s->data;
	struct task_struct *t = current_task();

	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	s->flags = act_flags(t);
	head_of(&e->h, type, t);
	return e;
}

static __always_inline void tell_two(__u32 type, struct vfsmount *mnt, struct dentry *old, struct dentry *new,
				     __u32 flags)
{
	struct scratch *s;
	struct event_rename *e;
	struct inode *i;
	__u32 first;

	if (left_out(type))
		return;
	first = over_budget() ? weight(type) : 0;
	s = take(type, RING_BULK);
	if (!s)
		return;
	e = begin_rename(s, type);
	s->flags |= first;
	i = BPF_CORE_READ(old, d_inode);
	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	e->ino = BPF_CORE_READ(i, i_ino);
	e->size = BPF_CORE_READ(i, i_size);
	e->mode = BPF_CORE_READ(i, i_mode);
	e->uid = BPF_CORE_READ(i, i_uid.val);
	e->gid = BPF_CORE_READ(i, i_gid.val);
	e->links = BPF_CORE_READ(i, i_nlink);
	e->flags = flags;
	i = BPF_CORE_READ(new, d_inode);
	if (i) {
		e->replaced_ino = BPF_CORE_READ(i, i_ino);
		e->replaced_mode = BPF_CORE_READ(i, i_mode);
	}
	e->old_len = walk(s, mnt, old);
	e->old_outer = e->old_len - s->inner;
	first = s->flags;
	s->flags = 0;
	e->new_len = walk(s, mnt, new);
	e->new_outer = e->new_len - s->inner;
	if (s->flags & FL_PATH_TRUNC)
		first |= FL_PATH2_TRUNC;
	if (s->flags & FL_DETACHED)
		first |= FL_DETACHED2;
	s->flags = first;
	e->place_len = walk_place(s);
	send(s, e, RING_BULK);
	give(s);
}
