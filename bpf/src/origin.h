/* SPDX-License-Identifier: GPL-2.0 */
/* Where the content of a file comes from, and with it whether its times say
 * anything: a file system that some user has mounted in a user namespace shows
 * what that user likes, overlayfs what lies below it. */
#pragma once

#include "maps.h"

#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define MNT_READONLY 0x40

struct origin {
	__u32 magic; /* number of the file system that holds the content; 0: of another user namespace, or not known */
	__u32 doubt; /* 1: the content may change and the times stay */
};

static __always_inline __u32 own_magic(struct inode *i)
{
	struct super_block *sb = BPF_CORE_READ(i, i_sb);

	return BPF_CORE_READ(sb, s_user_ns, level) ? 0 : BPF_CORE_READ(sb, s_magic);
}

/* is_below says whether r is the open file that overlayfs keeps for f: its path is
 * that of f up to 6.4, and later that of its own inode. Whatever else lies at
 * that address is neither. */
static __always_inline bool is_below(struct file *r, struct file *f)
{
	struct inode *i = BPF_CORE_READ(r, f_inode);
	struct dentry *d = BPF_CORE_READ(r, f_path.dentry);

	return i && d && (d == BPF_CORE_READ(f, f_path.dentry) || BPF_CORE_READ(d, d_inode) == i);
}

/* below is that file: since 6.13 the first that a small structure names. */
static __always_inline struct file *below(struct file *f)
{
	struct file *direct = BPF_CORE_READ(f, private_data), *r = 0;

	bpf_probe_read_kernel(&r, sizeof(r), direct);
	if (is_below(r, f))
		return r;
	return is_below(direct, f) ? direct : 0;
}

/* What overlayfs has above may be written through a mapping, which leaves the
 * times that it shows alone. Layers below are mounted for reading only, where
 * the kernel tells that. */
static __noinline int find_origin(struct file *f, struct origin *o)
{
	struct file *r;

	if (!o)
		return 0;
	o->doubt = 0;
	o->magic = own_magic(BPF_CORE_READ(f, f_inode));
	if (o->magic != OVERLAYFS_SUPER_MAGIC)
		return 0;
	o->doubt = 1;
	o->magic = 0;
	r = below(f);
	if (!r)
		return 0;
	o->magic = own_magic(BPF_CORE_READ(r, f_inode));
	if (o->magic == OVERLAYFS_SUPER_MAGIC) /* one upon another: nobody looks deeper */
		o->magic = 0;
	if (BPF_CORE_READ(r, f_path.dentry) != BPF_CORE_READ(f, f_path.dentry) &&
	    (BPF_CORE_READ(r, f_path.mnt, mnt_flags) & MNT_READONLY))
		o->doubt = 0;
	return 0;
}
