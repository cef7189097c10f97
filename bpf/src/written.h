/* SPDX-License-Identifier: GPL-2.0 */
/* Writes, told at the first through each open file description and summed up
 * at its end. */
#pragma once

#include "file.h"
#include "origin.h"

struct written {
	__u64 first; /* time */
	__u64 size0;
	__s64 ctime0;
	__u64 ops;
	__u64 bytes;
	__u64 start; /* of the process that wrote first, for an end that the kernel brings about later */
	__u32 tgid;
	__u32 tid;
	__u32 euid;
	__u32 mntns;
	__u32 hows;
	__u32 pad;
};

/* Open file descriptions that have been written through, by their address.
 * Full: the first write of each process to each file is told, and for every
 * description the sum at its end counts as lost. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct written);
} wr SEC(".maps");

/* Open file descriptions for which there was no room in the map before when they
 * were first written through: by their address, until they end. Pushed out, one
 * is told again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u8);
} unsummed SEC(".maps");

/* Regular files and, for whole file systems lie in them, block devices. */
static __always_inline bool holds_data(__u32 mode)
{
	return (mode & S_IFMT) == S_IFREG || (mode & S_IFMT) == S_IFBLK;
}

static __always_inline void add_write(struct written *w, __u32 how, __u64 bytes)
{
	__sync_fetch_and_add(&w->ops, 1);
	if (bytes)
		__sync_fetch_and_add(&w->bytes, bytes);
	/* Two writers at once may lose a bit of each other's: a word of what
	 * the sum says, never the sum. */
	if (!(w->hows & (1U << how)))
		w->hows |= 1U << how;
}

/* Files that the kernel itself opened to serve an open one: the layer below
 * overlayfs. Copying a file up from there is no act of the process. */
static __always_inline bool kernels_file(struct file *f)
{
	struct vfsmount *mnt;

	if (BPF_CORE_READ(f, f_mode) & FMODE_NOACCOUNT)
		return true;
	mnt = BPF_CORE_READ(f, f_path.mnt);
	return kernels_own(mnt) && !in_memory(BPF_CORE_READ(f, f_path.dentry));
}

static __always_inline __u32 temporary(struct file *f, struct inode *i)
{
	if ((BPF_CORE_READ(f, f_flags) & O_TMPFILE_BIT) && !BPF_CORE_READ(i, i_nlink))
		return FL_TEMPORARY;
	return 0;
}

/* without_sum notes that a description gets no sum and says whether its first
 * write is still to be told: once for each process and file. */
static __always_inline bool without_sum(__u64 description, struct inode *i)
{
	struct sum_key k = of_current(EV_WRITE, SUM_HEAD);
	__u8 one = 1;

	if (insert(&unsummed, &description, &one) == -EEXIST)
		return false; /* another thread was first */
	drop_unsequenced(EV_CLOSE, RING_BULK, DROP_MAP);
	k.object = BPF_CORE_READ(i, i_ino);
	k.place = BPF_CORE_READ(i, i_sb, s_dev);
	return first_time(&k);
}

/* written takes in one write through f; done says that it has
 * changed the file already. */
static __always_inline void written(struct file *f, __u32 how, __u64 bytes, bool done)
{
	struct inode *i = BPF_CORE_READ(f, f_inode);
	struct task_struct *t = current_task();
	struct written n = {}, *w;
	struct more m = { .arg = how };
	__u64 key = (__u64)f, id;
	int err;

	w = bpf_map_lookup_elem(&wr, &key);
	if (w) {
		add_write(w, how, bytes);
		return;
	}
	if (bpf_map_lookup_elem(&unsummed, &key))
		return;
	if ((field(t, flags) & PF_KTHREAD) || of_kernel(BPF_CORE_READ(i, i_sb)) || kernels_file(f))
		return;
	id = bpf_get_current_pid_tgid();
	n.first = bpf_ktime_get_boot_ns();
	if (!done) {
		n.size0 = BPF_CORE_READ(i, i_size);
		n.ctime0 = changed(i);
		m.arg2 = n.size0;
	}
	n.ops = 1;
	n.bytes = bytes;
	n.start = start_of(t);
	n.tgid = id >> 32;
	n.tid = id;
	n.euid = BPF_CORE_READ(t, cred, euid.val);
	n.mntns = mount_namespace_of(t);
	n.hows = 1U << how;
	err = insert(&wr, &key, &n);
	if (err == -EEXIST) { /* another thread was first */
		w = bpf_map_lookup_elem(&wr, &key);
		if (w)
			add_write(w, how, bytes);
		return;
	}
	if (err && !without_sum(key, i))
		return;
	m.flags = temporary(f, i);
	tell_file(EV_WRITE, f, &m);
}

/* A mapping of a file on overlayfs may hold on to the file below. It is told
 * by the path that was opened, and has no sum. */
static __always_inline void mapping_of_layer(struct file *f)
{
	struct backing_file *b = (struct backing_file *)f;
	struct more m = { .arg = HOW_MMAP };
	struct vfsmount *mnt;
	struct dentry *d;
	struct inode *i;

	if (bpf_core_field_exists(b->user_path) && kernels_own(BPF_CORE_READ(f, f_path.mnt))) {
		mnt = BPF_CORE_READ(b, user_path.mnt);
		d = BPF_CORE_READ(b, user_path.dentry);
	} else {
		mnt = BPF_CORE_READ(f, f_path.mnt);
		d = BPF_CORE_READ(f, f_path.dentry);
	}
	i = BPF_CORE_READ(d, d_inode);
	m.arg2 = BPF_CORE_READ(i, i_size);
	tell_more(EV_WRITE, mnt, d, i, 0, &m);
}

static __always_inline bool agents(__u32 tgid)
{
	struct config *c = configuration();

	return c && c->self == tgid;
}

/* closed tells the sum of what was written through f, which ends now. */
static __always_inline void closed(struct file *f)
{
	__u64 key = (__u64)f;
	struct written *w;
	struct task_struct *t = current_task();
	struct event_close *e;
	struct scratch *s;
	struct inode *i;
	struct dentry *d;
	struct origin from = {};
	__u32 heavy = 0;

	w = bpf_map_lookup_elem(&wr, &key);
	if (!w) {
		bpf_map_delete_elem(&unsummed, &key); /* most often: opened to write, and never written */
		return;
	}
	if (agents(w->tgid)) {
		own(EV_CLOSE);
		goto forget;
	}
	if (!(BPF_CORE_READ(t, flags) & PF_KTHREAD))
		heavy = fold(EV_CLOSE, BPF_CORE_READ(f, f_path.mnt), BPF_CORE_READ(f, f_path.dentry),
			     BPF_CORE_READ(f, f_inode), w->bytes);
	if (heavy == FOLDED)
		goto forget;
	s = take(EV_CLOSE, RING_BULK);
	if (!s)
		goto forget;
	e = (struct event_close *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	s->flags = act_flags(t) | heavy;
	head_of(&e->h, EV_CLOSE, t);
	if (field(t, flags) & PF_KTHREAD) {
		e->h.tgid = w->tgid;
		e->h.tid = w->tid;
		e->h.start = w->start;
		e->h.euid = w->euid;
	}
	/* A process that ends has left its name spaces before its files close. */
	if (!e->h.mntns || (field(t, flags) & PF_KTHREAD))
		e->h.mntns = w->mntns;
	i = BPF_CORE_READ(f, f_inode);
	d = BPF_CORE_READ(f, f_path.dentry);
	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	find_origin(f, &from);
	e->magic = from.magic;
	e->doubt = from.doubt;
	e->ino = BPF_CORE_READ(i, i_ino);
	e->mode = BPF_CORE_READ(i, i_mode);
	e->uid = BPF_CORE_READ(i, i_uid.val);
	e->gid = BPF_CORE_READ(i, i_gid.val);
	e->links = BPF_CORE_READ(i, i_nlink);
	e->size0 = w->size0;
	e->size1 = BPF_CORE_READ(i, i_size);
	e->ctime0 = w->ctime0;
	e->ctime1 = changed(i);
	e->mtime = modified(i) ^ e->ctime1;
	e->ops = w->ops;
	e->bytes = w->bytes ^ e->size1;
	e->hows = w->hows;
	if (in_memory(d))
		s->flags |= FL_MEMORY;
	else if (temporary(f, i))
		s->flags |= FL_TEMPORARY;
	else
		note_deleted(s, d, i);
	e->path_len = walk(s, BPF_CORE_READ(f, f_path.mnt), d);
	e->outer_len = e->path_len - s->inner;
	e->place_len = walk_place(s);
	send(s, e, RING_BULK);
	give(s);
forget:
	bpf_map_delete_elem(&wr, &key);
}
