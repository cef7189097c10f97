/* SPDX-License-Identifier: GPL-2.0 */
/* Files from the kernel's own decision points: the objects are the kernel's, so
 * no race with user memory can forge a name. The hooks on paths know the mount
 * and come before the owner and the mode are asked, so they only remember; those
 * on inodes, after that, tell. What a layer of the kernel does to serve an act
 * (overlayfs) comes by the latter alone and is not told twice. Each program
 * returns the verdict of those before it: 0. */
#pragma once

#include "acts.h"
#include "written.h"

SEC("lsm/file_open")
int BPF_PROG(on_file_open, struct file *file)
{
	struct more m = { .flags = FL_RESULT };

	if (!(file->f_mode & FMODE_CREATED) && !(file->f_flags & O_TMPFILE_BIT))
		return 0;
	if (file->f_mode & FMODE_NOACCOUNT)
		return 0;
	m.flags |= temporary(file, BPF_CORE_READ(file, f_inode));
	tell_file(EV_CREATE, file, &m);
	return 0;
}

/* How a write comes about, by the call that makes it; n is how many bytes it
 * asks for, where that is known. */
static __always_inline __u32 how_of(__u64 *n)
{
	struct registers r = call();
	struct pt_regs *at = r.at;

	switch (r.nr) {
	case NR_write:
	case NR_pwrite64:
		*n = BPF_CORE_READ(at, dx);
		return HOW_WRITE;
	case NR_sendfile:
	case NR_splice:
	case NR_copy_file_range:
	case NR_ioctl:
		return HOW_COPY;
	case NR_fallocate:
		return HOW_FALLOCATE;
	}
	return HOW_WRITE;
}

SEC("lsm/file_permission")
int BPF_PROG(on_file_permission, struct file *file, int mask)
{
	__u64 n = 0;
	__u32 how;

	if (!(mask & MAY_WRITE) || !holds_data(file->f_inode->i_mode))
		return 0;
	how = how_of(&n);
	written(file, how, n, false);
	return 0;
}

/* Stores into a shared mapping come by no hook, so the mapping is told. */
SEC("lsm/mmap_file")
int BPF_PROG(on_mmap_shared, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)
{
	if (!file || !(flags & MAP_SHARED_BIT) || !(prot & PROT_WRITE))
		return 0;
	if (!holds_data(BPF_CORE_READ(file, f_inode, i_mode)) || !(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return 0;
	written(file, HOW_MMAP, 0, false);
	return 0;
}

SEC("lsm/file_mprotect")
int BPF_PROG(on_mprotect_shared, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	struct file *file = BPF_CORE_READ(vma, vm_file);
	unsigned long flags = BPF_CORE_READ(vma, vm_flags);

	if (!file || !(prot & PROT_WRITE) || !(flags & VM_SHARED) || (flags & VM_WRITE))
		return 0;
	if (!holds_data(BPF_CORE_READ(file, f_inode, i_mode)))
		return 0;
	if (BPF_CORE_READ(file, f_mode) & FMODE_NOACCOUNT)
		mapping_of_layer(file);
	else
		written(file, HOW_MMAP, 0, false);
	return 0;
}

/* The end of an open file description: file_release where there is one (6.9),
 * else __fput, which runs first thing in the same place. */
SEC("lsm/file_release")
int BPF_PROG(on_file_release, struct file *file)
{
	if (file->f_mode & FMODE_WRITE)
		closed(file);
	return 0;
}

SEC("fentry/__fput")
int BPF_PROG(on_fput, struct file *file)
{
	if (file->f_mode & FMODE_WRITE)
		closed(file);
	return 0;
}

static __always_inline void about_to(__u32 type, struct path *dir, struct dentry *d, struct dentry *d2, __u32 mode,
				     __u32 flags, const void *text)
{
	struct act a = { .type = type, .dentry = (__u64)d, .dentry2 = (__u64)d2, .mode = mode, .flags = flags };

	if (by_kernel())
		return;
	if (type == EV_CREATE)
		a.nr = call().nr;
	a.mnt = (__u64)dir->mnt;
	a.dir = (__u64)dir->dentry;
	a.text = (__u64)text;
	remember(&a);
}

SEC("lsm/path_mknod")
int BPF_PROG(on_path_mknod, struct path *dir, struct dentry *dentry, int mode, unsigned int dev)
{
	__u32 kind = mode & S_IFMT;

	/* Regular files come by file_open once they exist, but for mknod(2). */
	if (kind == S_IFREG || kind == 0) {
		struct registers r = call();

		if (r.nr != NR_mknod && r.nr != NR_mknodat && r.nr32 != NR32_mknod && r.nr32 != NR32_mknodat)
			return 0;
		kind = S_IFREG;
	}
	about_to(EV_CREATE, dir, dentry, 0, kind, 0, 0);
	return 0;
}

SEC("lsm/path_mkdir")
int BPF_PROG(on_path_mkdir, struct path *dir, struct dentry *dentry, int mode)
{
	about_to(EV_CREATE, dir, dentry, 0, S_IFDIR, 0, 0);
	return 0;
}

SEC("lsm/path_symlink")
int BPF_PROG(on_path_symlink, struct path *dir, struct dentry *dentry, const char *old_name)
{
	about_to(EV_CREATE, dir, dentry, 0, S_IFLNK, 0, old_name);
	return 0;
}

/* A dentry gets its inode: what was to be made is made. It is also so for every
 * file that is looked up first, hence the checks: an act that failed may have
 * left the address of a dentry that has become another's. */
SEC("lsm/d_instantiate")
int BPF_PROG(on_d_instantiate, struct dentry *dentry, struct inode *inode)
{
	struct more m = { .flags = FL_RESULT };
	struct act *a = remembered();

	if (!a || !inode || a->dentry != (__u64)dentry || a->type != EV_CREATE)
		return 0;
	if ((__u64)BPF_CORE_READ(dentry, d_parent) != a->dir || (BPF_CORE_READ(inode, i_mode) & S_IFMT) != a->mode)
		return 0;
	if (a->nr != call().nr)
		return 0;
	a->dentry = 0;
	m.extra = (void *)a->text;
	tell_more(EV_CREATE, (struct vfsmount *)a->mnt, dentry, inode, 0, &m);
	return 0;
}

static __always_inline bool is_dir(struct dentry *d)
{
	return (BPF_CORE_READ(d, d_inode, i_mode) & S_IFMT) == S_IFDIR;
}

SEC("lsm/path_unlink")
int BPF_PROG(on_path_unlink, struct path *dir, struct dentry *dentry)
{
	about_to(EV_UNLINK, dir, dentry, 0, 0, 0, 0);
	return 0;
}

SEC("lsm/path_rmdir")
int BPF_PROG(on_path_rmdir, struct path *dir, struct dentry *dentry)
{
	about_to(EV_UNLINK, dir, dentry, 0, 0, 0, 0);
	return 0;
}

static __always_inline void unlinking(struct dentry *dentry)
{
	struct act *a = remembered();

	if (!a || a->dentry != (__u64)dentry || a->type != EV_UNLINK)
		return;
	a->dentry = 0;
	tell(EV_UNLINK, (struct vfsmount *)a->mnt, dentry, 0, 0, 0);
}

SEC("lsm/inode_unlink")
int BPF_PROG(on_inode_unlink, struct inode *dir, struct dentry *dentry)
{
	/* Whether it is a directory is asked later; many programs try unlink
	 * before rmdir. */
	if (!is_dir(dentry))
		unlinking(dentry);
	return 0;
}

SEC("lsm/inode_rmdir")
int BPF_PROG(on_inode_rmdir, struct inode *dir, struct dentry *dentry)
{
	unlinking(dentry);
	return 0;
}

SEC("lsm/path_link")
int BPF_PROG(on_path_link, struct dentry *old, struct path *dir, struct dentry *new)
{
	about_to(EV_LINK, dir, old, new, 0, 0, 0); /* one mount: links do not cross any */
	return 0;
}

SEC("lsm/inode_link")
int BPF_PROG(on_inode_link, struct dentry *old, struct inode *dir, struct dentry *new)
{
	struct act *a = remembered();

	if (!a || a->dentry != (__u64)old || a->dentry2 != (__u64)new || a->type != EV_LINK)
		return 0;
	a->dentry = 0;
	tell_two(EV_LINK, (struct vfsmount *)a->mnt, old, new, 0);
	return 0;
}

/* Kernels before 6.0 call it twice for an exchange, the other way round first. */
SEC("lsm/path_rename")
int BPF_PROG(on_path_rename, struct path *old_dir, struct dentry *old, struct path *new_dir, struct dentry *new)
{
	about_to(EV_RENAME, old_dir, old, new, 0, 0, 0); /* one mount: as for links */
	return 0;
}

/* Of an exchange it is called the other way round first, on all kernels. */
SEC("lsm/inode_rename")
int BPF_PROG(on_inode_rename, struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new)
{
	struct act *a = remembered();

	if (!a || a->type != EV_RENAME)
		return 0;
	if (a->dentry == (__u64)new && a->dentry2 == (__u64)old) {
		a->flags = RENAME_EXCHANGE;
		return 0;
	}
	if (a->dentry != (__u64)old || a->dentry2 != (__u64)new)
		return 0;
	a->dentry = 0;
	tell_two(EV_RENAME, (struct vfsmount *)a->mnt, old, new, a->flags);
	return 0;
}
