/* SPDX-License-Identifier: GPL-2.0 */
/* Names of files. The walk goes from the leaf to the root of the mount
 * namespace, across mounts and past any chroot, and appends each name with its
 * NUL: user space turns the order round. The running offset stays in map
 * memory and not in a register: so the verifier sees the same state on each
 * round and stops after a few thousand instructions, on every kernel. */
#pragma once

#include "maps.h"

#define MAX_COMPONENTS 64
#define NAME_BYTES 256
#define MAX_PATH_BYTES 6656 /* two paths, a place and a head fit into a buffer */
#define MAX_PLACE_BYTES 2048

#define NOT_YET 0xffffffff

#define container_of_mount(m) ((struct mount *)((void *)(m) - bpf_core_field_offset(struct mount, mnt)))

/* A mount that no name space holds belongs to the kernel: layers of overlayfs
 * are reached through such. */
#define KERNELS_OWN ((struct mnt_namespace *)-22L)

static __always_inline bool kernels_own(struct vfsmount *vfs)
{
	return BPF_CORE_READ(container_of_mount(vfs), mnt_ns) == KERNELS_OWN;
}

/* attached says whether a mount is in some name space's tree: not those that
 * were unmounted while in use, nor those that were never put anywhere. */
static __always_inline bool attached(struct mount *m)
{
	struct mnt_namespace *ns = BPF_CORE_READ(m, mnt_ns);

	if (!ns || ns == KERNELS_OWN)
		return false;
	if (bpf_core_field_exists(ns->seq))
		return BPF_CORE_READ(ns, seq) != 0;
	if (bpf_core_field_exists(ns->ns.ns_id))
		return BPF_CORE_READ(ns, ns.ns_id) != 0;
	return true;
}

/* append_name appends one string of at most NAME_BYTES with its NUL. */
static __always_inline void append_name(struct scratch *s, const void *name)
{
	__u32 off = s->off & (DATA_BYTES - 1);
	long n = bpf_probe_read_kernel_str(&s->data[off], NAME_BYTES, name);

	if (n > 0)
		s->off = off + n;
	else
		s->flags |= FL_PATH_TRUNC;
}

/* step does one round of walk: 0 to go on, 1 at the end. It is a function of its
 * own because kernels up to 6.1 take no loop whose end falls through to its
 * head, which clang likes to make of the whole. */
static __always_inline int step(struct scratch *s)
{
	struct dentry *d = (struct dentry *)s->dentry;
	struct dentry *parent;

	if (s->dentry == s->root) {
		struct mount *cur = (struct mount *)s->mnt;
		struct mount *up = BPF_CORE_READ(cur, mnt_parent);

		if (!up || up == cur) {
			if (!attached(cur))
				s->flags |= FL_DETACHED;
			return 1;
		}
		if (s->inner == NOT_YET)
			s->inner = s->off - s->start;
		s->dentry = (__u64)BPF_CORE_READ(cur, mnt_mountpoint);
		s->mnt = (__u64)up;
		s->root = (__u64)BPF_CORE_READ(up, mnt.mnt_root);
		return 0;
	}
	if (s->off - s->start > MAX_PATH_BYTES - NAME_BYTES || s->off > DATA_BYTES - NAME_BYTES) {
		s->flags |= FL_PATH_TRUNC;
		return 1;
	}
	append_name(s, BPF_CORE_READ(d, d_name.name));
	parent = BPF_CORE_READ(d, d_parent);
	if (!parent || parent == d) {
		/* A file that no directory holds: memfd, or a mount that was
		 * taken away. */
		s->flags |= FL_DETACHED;
		return 1;
	}
	s->dentry = (__u64)parent;
	return 0;
}

/* rounds does a walk, at most so many steps of it, and says whether it came to
 * its end. Kernels from 5.17 on check one round for all, which makes loading
 * much faster; the others take them one by one. */
#ifdef OLD
#define rounds(s, n, f)                                                                            \
	({                                                                                         \
		int left = (n);                                                                    \
		struct scratch *held = (s);                                                        \
		(s)->ended = 0;                                                                    \
		while (left-- > 0)                                                                 \
			if (f##_in_loop(left, &held))                                                  \
				break;                                                             \
		(s)->ended;                                                                        \
	})
#else
enum bpf_func_id___loops { BPF_FUNC_loop___loops = 181 };

#define rounds(s, n, f)                                                                            \
	({                                                                                         \
		int left = (n);                                                                    \
		struct scratch *held = (s);                                                        \
		(s)->ended = 0;                                                                    \
		if (bpf_core_enum_value_exists(enum bpf_func_id___loops, BPF_FUNC_loop___loops))   \
			bpf_loop(left, f##_in_loop, &held, 0);                                         \
		else                                                                               \
			while (left-- > 0)                                                         \
				if (f##_in_loop(left, &held))                                          \
					break;                                                     \
		(s)->ended;                                                                        \
	})
#endif

static __noinline long step_in_loop(__u32 i, struct scratch **held)
{
	struct scratch *s = *held;

	if (!step(s))
		return 0;
	s->ended = 1;
	return 1;
}

/* walk appends the path of leaf as seen through vfs and returns its length.
 * s->inner then says how much of that lies within the leaf's own mount. */
static __always_inline __u32 walk(struct scratch *s, struct vfsmount *vfs, struct dentry *leaf)
{
	struct mount *m = container_of_mount(vfs);

	s->start = s->off;
	s->inner = NOT_YET;
	s->dentry = (__u64)leaf;
	s->mnt = (__u64)m;
	s->root = (__u64)BPF_CORE_READ(m, mnt.mnt_root);
	s->place = s->root;
	if (!rounds(s, MAX_COMPONENTS + 16, step)) /* mounts on the way take one each */
		s->flags |= FL_PATH_TRUNC;
	if (s->inner == NOT_YET)
		s->inner = s->off - s->start;
	return s->off - s->start;
}

static __always_inline int step_place(struct scratch *s)
{
	struct dentry *d = (struct dentry *)s->dentry;
	struct dentry *parent = BPF_CORE_READ(d, d_parent);

	if (!parent || parent == d)
		return 1;
	if (s->off - s->start > MAX_PLACE_BYTES - NAME_BYTES || s->off > DATA_BYTES - NAME_BYTES) {
		s->flags |= FL_PATH_TRUNC;
		return 1;
	}
	append_name(s, BPF_CORE_READ(d, d_name.name));
	s->dentry = (__u64)parent;
	return 0;
}

static __noinline long step_place_in_loop(__u32 i, struct scratch **held)
{
	struct scratch *s = *held;

	if (!step_place(s))
		return 0;
	s->ended = 1;
	return 1;
}

/* walk_place appends where in its file system the root of the mount lies that
 * walk went out from: nothing, but for bind mounts, subvolumes and containers.
 * Together with the inner part of the path it names the file however it was
 * reached. */
static __always_inline __u32 walk_place(struct scratch *s)
{
	s->start = s->off;
	s->dentry = s->place;
	if (!rounds(s, MAX_COMPONENTS, step_place))
		s->flags |= FL_PATH_TRUNC;
	return s->off - s->start;
}

/* An unlinked file keeps its name in the dentry but is out of the hash. */
static __always_inline void note_deleted(struct scratch *s, struct dentry *d, struct inode *i)
{
	if (!BPF_CORE_READ(d, d_hash.pprev) && !BPF_CORE_READ(i, i_nlink))
		s->flags |= FL_DELETED;
}

/* append_user appends a string from user memory, at most a PATH_MAX. */
static __always_inline __u32 append_user(struct scratch *s, const void *from)
{
	__u32 off = s->off & (DATA_BYTES - 1);
	long n = bpf_probe_read_user_str(&s->data[off], 4096, from);

	if (n <= 0) {
		s->flags |= FL_PATH_TRUNC;
		return 0;
	}
	s->off = off + n;
	return n;
}

/* append_user_text appends a string that need not be there, and is no path. */
static __always_inline __u32 append_user_text(struct scratch *s, const void *from)
{
	__u32 off = s->off & (DATA_BYTES - 1);
	long n = bpf_probe_read_user_str(&s->data[off], NAME_BYTES, from);

	if (n <= 0)
		return 0;
	s->off = off + n;
	return n;
}
