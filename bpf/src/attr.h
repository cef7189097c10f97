/* SPDX-License-Identifier: GPL-2.0 */
/* Changes of what a file carries besides its content: mode, owner, size, times,
 * extended attributes, flags. They are told when they are done. The functions
 * that do them know the file but not through which mount it was reached; the
 * call that asks for leave to write has told before. */
#pragma once

#include "acts.h"
#include "written.h"

#define EV_SETATTR EV_CHMOD /* of an act: any change that notify_change does */

/* wants_mount says whether a call may come to one of the programs below. Others
 * ask for leave to write as well, and far more often. */
static __always_inline bool wants_mount(void)
{
	switch (call().nr) {
	case NO_CALL: /* of a 32-bit program, a worker */
	case NR_ioctl:
	case NR_truncate:
	case NR_chmod:
	case NR_fchmod:
	case NR_fchmodat:
	case NR_fchmodat2:
	case NR_chown:
	case NR_fchown:
	case NR_lchown:
	case NR_fchownat:
	case NR_utime:
	case NR_utimes:
	case NR_futimesat:
	case NR_utimensat:
	case NR_setxattr:
	case NR_lsetxattr:
	case NR_fsetxattr:
	case NR_setxattrat:
	case NR_removexattr:
	case NR_lremovexattr:
	case NR_fremovexattr:
	case NR_removexattrat:
	case NR_file_setattr:
	case NR_io_uring_enter:
		return true;
	}
	return false;
}

static __always_inline void through(struct vfsmount *mnt)
{
	struct act a = { .type = EV_SETATTR, .mnt = (__u64)mnt };

	if (by_kernel() || !wants_mount() || kernels_own(mnt))
		return;
	remember(&a);
}

SEC("fentry/mnt_want_write")
int BPF_PROG(on_want_write, struct vfsmount *mnt)
{
	through(mnt);
	return 0;
}

SEC("fentry/mnt_want_write_file")
int BPF_PROG(on_want_write_file, struct file *file)
{
	through(BPF_CORE_READ(file, f_path.mnt));
	return 0;
}

/* mount_of returns the mount that d was reached through, or none when a layer
 * of the kernel does this to serve an act on another file system. */
static __always_inline struct vfsmount *mount_of(struct dentry *d)
{
	struct act *a = remembered();
	struct vfsmount *mnt;

	if (!a || a->type != EV_SETATTR)
		return 0;
	mnt = (struct vfsmount *)a->mnt;
	return mnt && BPF_CORE_READ(mnt, mnt_sb) == BPF_CORE_READ(d, d_sb) ? mnt : 0;
}

/* An argument by its place. Left to itself the compiler would make one load of
 * two, at an address that it computes; kernel 5.10 does not take that. */
#define argument(ctx, n)                                                                           \
	({                                                                                         \
		__u64 v;                                                                           \
		asm volatile("%0 = *(u64 *)(%1 + " #n " * 8)" : "=r"(v) : "r"(ctx));               \
		v;                                                                                 \
	})

SEC("fentry/notify_change")
int on_setattr(unsigned long long *ctx)
{
	struct act a = { .type = EV_SETATTR };
	struct dentry *d;
	struct iattr *attr;
	struct inode *i;
	struct file *f;

	if (given_mapping()) {
		d = (struct dentry *)argument(ctx, 1);
		attr = (struct iattr *)argument(ctx, 2);
	} else {
		d = (struct dentry *)argument(ctx, 0);
		attr = (struct iattr *)argument(ctx, 1);
	}
	a.flags = BPF_CORE_READ(attr, ia_valid);
	if (!(a.flags & (ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_SIZE | ATTR_ATIME | ATTR_MTIME)) || by_kernel())
		return 0;
	if (a.flags & ATTR_FILE) { /* truncation by open(2) and ftruncate(2) */
		f = BPF_CORE_READ(attr, ia_file);
		if (kernels_file(f))
			return 0;
		a.mnt = (__u64)BPF_CORE_READ(f, f_path.mnt);
	} else {
		a.mnt = (__u64)mount_of(d);
	}
	if (!a.mnt)
		return 0;
	i = BPF_CORE_READ(d, d_inode);
	a.dentry = (__u64)d;
	a.size = BPF_CORE_READ(i, i_size);
	a.mode = BPF_CORE_READ(i, i_mode);
	remember(&a);
	return 0;
}

/* attributes_set tells of a change by what was asked for. Times change with
 * the size as well, that is not told apart. */
static __always_inline void attributes_set(struct act *a, struct dentry *d)
{
	struct inode *i = BPF_CORE_READ(d, d_inode);
	struct vfsmount *mnt = (struct vfsmount *)a->mnt;
	struct more m = { .flags = FL_RESULT };
	struct file_times times;
	__u32 type;

	if (a->flags & ATTR_SIZE) {
		if ((a->mode & S_IFMT) != S_IFREG || of_kernel(BPF_CORE_READ(i, i_sb)))
			return;
		type = EV_TRUNCATE;
		m.arg2 = a->size;
	} else if (a->flags & ATTR_MODE) {
		type = EV_CHMOD;
		m.arg = a->mode;
	} else if (a->flags & (ATTR_UID | ATTR_GID)) {
		type = EV_CHOWN;
	} else {
		type = EV_UTIME;
		times.atime = accessed(i);
		times.mtime = modified(i);
		times.ctime = changed(i);
		m.extra = &times;
		m.extra_len = sizeof(times);
	}
	tell_more(type, mnt, d, i, 0, &m);
}

SEC("fexit/notify_change")
int on_setattr_done(unsigned long long *ctx)
{
	struct dentry *d;
	struct act *a;
	int err;

	if (given_mapping()) {
		d = (struct dentry *)argument(ctx, 1);
		err = argument(ctx, 4);
	} else {
		d = (struct dentry *)argument(ctx, 0);
		err = argument(ctx, 3);
	}
	a = remembered();
	if (!a || a->type != EV_SETATTR || a->dentry != (__u64)d)
		return 0;
	a->dentry = 0;
	if (!err)
		attributes_set(a, d);
	return 0;
}

static __always_inline void tell_xattr(struct dentry *d, const char *name, __u64 size, bool removed)
{
	struct more m = { .extra = name, .arg2 = size, .arg = removed };
	struct vfsmount *mnt = mount_of(d);

	if (mnt && !by_kernel())
		tell_more(EV_XATTR, mnt, d, BPF_CORE_READ(d, d_inode), 0, &m);
}

SEC("lsm/inode_setxattr")
int on_inode_setxattr(unsigned long long *ctx)
{
	if (given_mapping())
		tell_xattr((struct dentry *)argument(ctx, 1), (const char *)argument(ctx, 2), argument(ctx, 4), false);
	else
		tell_xattr((struct dentry *)argument(ctx, 0), (const char *)argument(ctx, 1), argument(ctx, 3), false);
	return 0;
}

SEC("lsm/inode_removexattr")
int on_inode_removexattr(unsigned long long *ctx)
{
	if (given_mapping())
		tell_xattr((struct dentry *)argument(ctx, 1), (const char *)argument(ctx, 2), 0, true);
	else
		tell_xattr((struct dentry *)argument(ctx, 0), (const char *)argument(ctx, 1), 0, true);
	return 0;
}

/* Access lists are extended attributes that go their own way since 6.2. */
SEC("lsm/inode_set_acl")
int BPF_PROG(on_inode_set_acl, void *idmap, struct dentry *d, const char *name, struct posix_acl *acl)
{
	tell_xattr(d, name, 4 + 8 * (__u64)BPF_CORE_READ(acl, a_count), false);
	return 0;
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(on_inode_remove_acl, void *idmap, struct dentry *d, const char *name)
{
	tell_xattr(d, name, 0, true);
	return 0;
}

/* Since 5.13; before, each file system reads the flags itself. */
SEC("fexit/vfs_fileattr_set")
int BPF_PROG(on_fileattr_set, void *idmap, struct dentry *d, struct fileattr *fa, int ret)
{
	struct more m = { .flags = FL_RESULT };
	struct vfsmount *mnt;

	if (ret || by_kernel())
		return 0;
	mnt = mount_of(d);
	if (!mnt)
		return 0;
	m.arg = BPF_CORE_READ(fa, flags);
	tell_more(EV_ATTRIBUTES, mnt, d, BPF_CORE_READ(d, d_inode), 0, &m);
	return 0;
}

SEC("lsm/file_ioctl")
int BPF_PROG(on_file_ioctl, struct file *file, unsigned int cmd, unsigned long arg)
{
	struct more m = {};

	if ((cmd != FS_IOC_SETFLAGS && cmd != FS_IOC32_SETFLAGS) || by_kernel())
		return 0;
	bpf_probe_read_user(&m.arg, sizeof(m.arg), (void *)arg);
	tell_file(EV_ATTRIBUTES, file, &m);
	return 0;
}
