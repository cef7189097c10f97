/* SPDX-License-Identifier: GPL-2.0 */
/* What all sources of file events share. */
#pragma once

#include "path.h"

static __always_inline bool left_out(__u32 type)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	if (BPF_CORE_READ(t, flags) & PF_KTHREAD)
		return true;
	return own(type);
}

static __always_inline struct event_file *begin_file(struct scratch *s, __u32 type)
{
	struct event_file *e = (struct event_file *)s->data;

	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	head(&e->h, type, (struct task_struct *)bpf_get_current_task());
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
}

/* tell emits an event about one dentry seen through one mount. A dentry that
 * names nothing yet (mknod) takes its device from dir. */
static __always_inline void tell(__u32 type, struct vfsmount *mnt, struct dentry *d, struct dentry *dir, __u32 arg,
				 __u64 arg2)
{
	struct scratch *s;
	struct event_file *e;
	struct inode *i;

	if (left_out(type))
		return;
	s = take(type, RING_BULK);
	if (!s)
		return;
	e = begin_file(s, type);
	e->arg = arg;
	e->arg2 = arg2;
	i = BPF_CORE_READ(d, d_inode);
	if (i) {
		fill_inode(e, i);
		note_deleted(s, d, i);
	} else if (dir) {
		e->dev = BPF_CORE_READ(dir, d_inode, i_sb, s_dev);
	}
	e->path_len = walk(s, mnt, d);
	e->inner_len = s->inner;
	e->place_len = walk_place(s);
	send(s, RING_BULK);
	give(s);
}

static __always_inline void tell_file(__u32 type, struct file *f, __u32 arg, __u64 arg2)
{
	tell(type, BPF_CORE_READ(f, f_path.mnt), BPF_CORE_READ(f, f_path.dentry), 0, arg, arg2);
}

/* first_write emits once for each open file description. */
static __always_inline void first_write(struct file *f, __u32 how)
{
	struct inode *i = BPF_CORE_READ(f, f_inode);
	__u64 key = (__u64)f, now;

	if ((BPF_CORE_READ(i, i_mode) & S_IFMT) != S_IFREG)
		return;
	if (bpf_map_lookup_elem(&wr, &key))
		return;
	/* eventfd and its kin look like regular files on new kernels. */
	if (BPF_CORE_READ(i, i_sb, s_magic) == ANON_INODE_FS_MAGIC)
		return;
	now = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&wr, &key, &now, BPF_ANY);
	tell_file(EV_WRITE, f, how, 0);
}

static __always_inline void forget_writes(struct file *f)
{
	__u64 key = (__u64)f;

	bpf_map_delete_elem(&wr, &key);
}

static __always_inline struct event_rename *begin_rename(struct scratch *s, __u32 type)
{
	struct event_rename *e = (struct event_rename *)s->data;

	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	head(&e->h, type, (struct task_struct *)bpf_get_current_task());
	return e;
}

static __always_inline void tell_two(__u32 type, struct vfsmount *old_mnt, struct dentry *old, struct vfsmount *new_mnt,
				     struct dentry *new, __u32 flags)
{
	struct scratch *s;
	struct event_rename *e;
	struct inode *i;
	__u32 first;

	if (left_out(type))
		return;
	s = take(type, RING_BULK);
	if (!s)
		return;
	e = begin_rename(s, type);
	i = BPF_CORE_READ(old, d_inode);
	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	e->ino = BPF_CORE_READ(i, i_ino);
	e->size = BPF_CORE_READ(i, i_size);
	e->mode = BPF_CORE_READ(i, i_mode);
	e->uid = BPF_CORE_READ(i, i_uid.val);
	e->gid = BPF_CORE_READ(i, i_gid.val);
	e->flags = flags;
	i = BPF_CORE_READ(new, d_inode);
	if (i) {
		e->replaced_ino = BPF_CORE_READ(i, i_ino);
		e->replaced_mode = BPF_CORE_READ(i, i_mode);
	}
	e->old_len = walk(s, old_mnt, old);
	e->old_inner = s->inner;
	first = s->flags;
	s->flags = 0;
	e->new_len = walk(s, new_mnt, new);
	e->new_inner = s->inner;
	if (s->flags & FL_PATH_TRUNC)
		first |= FL_PATH2_TRUNC;
	if (s->flags & FL_DETACHED)
		first |= FL_DETACHED2;
	s->flags = first;
	e->place_len = walk_place(s);
	send(s, RING_BULK);
	give(s);
}
