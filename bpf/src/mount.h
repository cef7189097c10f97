/* SPDX-License-Identifier: GPL-2.0 */
/* Changes of the tree of mounts, by mount(2) and by the calls that came later. */
#pragma once

#include "file.h"

static __always_inline struct event_mount *begin_mount(struct scratch *s, __u32 type, __u32 operation, __u32 api,
						       __u64 flags)
{
	struct event_mount *e = (struct event_mount *)s->data;
	struct task_struct *t = current_task();

	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	s->flags = act_flags(t);
	head_of(&e->h, type, t);
	e->operation = operation;
	e->api = api;
	e->flags = flags;
	return e;
}

static __always_inline __u32 append_text(struct scratch *s, const char *text)
{
	__u32 off = s->off & (DATA_BYTES - 1);
	long n;

	if (!text || s->off > DATA_BYTES - 4096)
		return 0;
	n = bpf_probe_read_kernel_str(&s->data[off], 4096, text);
	if (n <= 0)
		return 0;
	s->off = off + n;
	return n;
}

static __always_inline void fill_root(struct event_mount *e, struct dentry *d)
{
	struct inode *i = BPF_CORE_READ(d, d_inode);

	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	e->ino = BPF_CORE_READ(i, i_ino);
	e->mode = BPF_CORE_READ(i, i_mode);
}

static __always_inline const char *type_of(struct dentry *d)
{
	return BPF_CORE_READ(d, d_sb, s_type, name);
}

/* walk_from appends where something comes from. What is cut there is not told
 * of the place. */
static __always_inline __u32 walk_from(struct scratch *s, struct vfsmount *mnt, struct dentry *d)
{
	__u32 n, flags = s->flags;

	s->flags = 0;
	n = walk(s, mnt, d);
	flags |= s->flags & FL_PATH_TRUNC ? FL_PATH2_TRUNC : 0;
	flags |= s->flags & FL_DETACHED ? FL_DETACHED2 : 0;
	s->flags = flags;
	return n;
}

/* newest returns the root of the mount that was attached last at a place. */
static __always_inline struct dentry *newest(struct vfsmount *at, struct dentry *place)
{
	struct mount *m = container_of_mount(at), *child;
	struct list_head *last = BPF_CORE_READ(m, mnt_mounts.prev);

	if ((void *)last == (void *)m + bpf_core_field_offset(struct mount, mnt_mounts))
		return 0;
	child = (struct mount *)((void *)last - bpf_core_field_offset(struct mount, mnt_child));
	if (BPF_CORE_READ(child, mnt_mountpoint) != place)
		return 0;
	return BPF_CORE_READ(child, mnt.mnt_root);
}

static __always_inline __u32 operation_of(unsigned long flags)
{
	if (flags & MS_REMOUNT)
		return MOUNT_REMOUNT;
	if (flags & MS_BIND)
		return MOUNT_BIND;
	if (flags & MS_PROPAGATION)
		return MOUNT_PROPAGATION;
	if (flags & MS_MOVE)
		return MOUNT_MOVE;
	return MOUNT_NEW;
}

/* mount(2), when it is done. */
SEC("fexit/path_mount")
int BPF_PROG(on_mount, const char *dev_name, struct path *path, const char *type_page, unsigned long flags, void *data,
	     int ret)
{
	struct vfsmount *mnt = BPF_CORE_READ(path, mnt);
	struct dentry *place = BPF_CORE_READ(path, dentry), *root;
	struct event_mount *e;
	struct scratch *s;

	if (ret || left_out(EV_MOUNT))
		return 0;
	s = take(EV_MOUNT, RING_CRIT);
	if (!s)
		return 0;
	if ((flags & MS_MGC_MSK) == MS_MGC_VAL)
		flags &= ~MS_MGC_MSK;
	e = begin_mount(s, EV_MOUNT, operation_of(flags), API_MOUNT, flags);
	s->flags |= FL_RESULT;
	root = place;
	if (e->operation == MOUNT_NEW || e->operation == MOUNT_BIND || e->operation == MOUNT_MOVE)
		root = newest(mnt, place);
	if (!root)
		root = place;
	fill_root(e, root);
	e->path_len = walk(s, mnt, place);
	e->source_len = append_text(s, dev_name);
	e->type_len = append_text(s, e->operation == MOUNT_NEW && type_page ? type_page : type_of(root));
	send(s, e, RING_CRIT);
	give(s);
	return 0;
}

/* move_mount(2): of what fsmount(2) or open_tree(2) made, and is attached
 * nowhere yet, or of a mount that is at another place until now. */
SEC("lsm/move_mount")
int BPF_PROG(on_move_mount, struct path *from, struct path *to)
{
	struct dentry *root = BPF_CORE_READ(from, dentry);
	struct mount *m = container_of_mount(BPF_CORE_READ(from, mnt));
	struct super_block *sb = BPF_CORE_READ(root, d_sb);
	bool new = !attached(m);
	__u32 operation = MOUNT_MOVE;
	struct event_mount *e;
	struct scratch *s;

	if (left_out(EV_MOUNT))
		return 0;
	/* The first mount of a file system is new; another one shows what is
	 * mounted somewhere else already. */
	if (new)
		operation = BPF_CORE_READ(sb, s_mounts.next) == BPF_CORE_READ(sb, s_mounts.prev) ? MOUNT_NEW : MOUNT_BIND;
	s = take(EV_MOUNT, RING_CRIT);
	if (!s)
		return 0;
	e = begin_mount(s, EV_MOUNT, operation, API_MOVE_MOUNT, 0);
	fill_root(e, root);
	e->path_len = walk(s, BPF_CORE_READ(to, mnt), BPF_CORE_READ(to, dentry));
	e->source_len = append_text(s, BPF_CORE_READ(m, mnt_devname));
	e->type_len = append_text(s, type_of(root));
	if (!new)
		e->from_len = walk_from(s, BPF_CORE_READ(from, mnt), root);
	send(s, e, RING_CRIT);
	give(s);
	return 0;
}

SEC("lsm/sb_umount")
int BPF_PROG(on_umount, struct vfsmount *mnt, int flags)
{
	struct dentry *root = BPF_CORE_READ(mnt, mnt_root);
	struct event_mount *e;
	struct scratch *s;

	if (left_out(EV_UNMOUNT))
		return 0;
	s = take(EV_UNMOUNT, RING_CRIT);
	if (!s)
		return 0;
	e = begin_mount(s, EV_UNMOUNT, MOUNT_UNMOUNT, API_MOUNT, flags);
	fill_root(e, root);
	e->path_len = walk(s, mnt, root);
	e->source_len = append_text(s, BPF_CORE_READ(container_of_mount(mnt), mnt_devname));
	e->type_len = append_text(s, type_of(root));
	send(s, e, RING_CRIT);
	give(s);
	return 0;
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(on_pivot_root, struct path *old, struct path *new)
{
	struct dentry *root = BPF_CORE_READ(new, dentry);
	struct event_mount *e;
	struct scratch *s;

	if (left_out(EV_PIVOT))
		return 0;
	s = take(EV_PIVOT, RING_CRIT);
	if (!s)
		return 0;
	e = begin_mount(s, EV_PIVOT, MOUNT_PIVOT, API_MOUNT, 0);
	fill_root(e, root);
	e->path_len = walk(s, BPF_CORE_READ(new, mnt), root);
	e->type_len = append_text(s, type_of(root));
	/* Where the old root goes. */
	e->from_len = walk_from(s, BPF_CORE_READ(old, mnt), BPF_CORE_READ(old, dentry));
	send(s, e, RING_CRIT);
	give(s);
	return 0;
}

/* fsconfig(2) with FSCONFIG_CMD_RECONFIGURE; remounting by mount(2) comes by here
 * too, and is told there. Through which mount the file system was picked is not
 * known any more: it is told at the place of its first one. */
SEC("fexit/reconfigure_super")
int BPF_PROG(on_reconfigure, struct fs_context *fc, int ret)
{
	struct dentry *root;
	struct super_block *sb;
	struct list_head *first;
	struct mount *m;
	struct event_mount *e;
	struct scratch *s;

	if (ret || call().nr != NR_fsconfig || left_out(EV_MOUNT))
		return 0;
	root = BPF_CORE_READ(fc, root);
	sb = BPF_CORE_READ(root, d_sb);
	first = BPF_CORE_READ(sb, s_mounts.next);
	if ((void *)first == (void *)sb + bpf_core_field_offset(struct super_block, s_mounts))
		return 0;
	m = (struct mount *)((void *)first - bpf_core_field_offset(struct mount, mnt_instance));
	s = take(EV_MOUNT, RING_CRIT);
	if (!s)
		return 0;
	e = begin_mount(s, EV_MOUNT, MOUNT_REMOUNT, API_FSCONFIG, 0);
	s->flags |= FL_RESULT;
	fill_root(e, root);
	e->path_len = walk(s, (struct vfsmount *)((void *)m + bpf_core_field_offset(struct mount, mnt)), root);
	e->source_len = append_text(s, BPF_CORE_READ(m, mnt_devname));
	e->type_len = append_text(s, type_of(root));
	send(s, e, RING_CRIT);
	give(s);
	return 0;
}
