/* SPDX-License-Identifier: GPL-2.0 */
/* File events from the kernel's own decision points: the objects are the
 * kernel's, so no race with user memory can forge a name. They tell of
 * attempts that have passed all checks before the hook. Each program returns
 * the verdict of those before it: 0. */
#pragma once

#include "file.h"

SEC("lsm/file_open")
int BPF_PROG(on_file_open, struct file *file)
{
	if (file->f_mode & FMODE_CREATED)
		tell_file(EV_CREATE, file, 0, 0);
	return 0;
}

SEC("lsm/file_permission")
int BPF_PROG(on_file_permission, struct file *file, int mask)
{
	if (!(mask & MAY_WRITE))
		return 0;
	if ((file->f_inode->i_mode & S_IFMT) != S_IFREG)
		return 0;
	first_write(file, HOW_WRITE);
	return 0;
}

/* The end of an open file description: file_release where there is one (6.9),
 * else __fput, which runs first thing in the same place. */
SEC("lsm/file_release")
int BPF_PROG(on_file_release, struct file *file)
{
	forget_writes(file);
	return 0;
}

SEC("fentry/__fput")
int BPF_PROG(on_fput, struct file *file)
{
	forget_writes(file);
	return 0;
}

SEC("lsm/path_mknod")
int BPF_PROG(on_path_mknod, struct path *dir, struct dentry *dentry, int mode, unsigned int dev)
{
	/* Regular files come by file_open once they exist. */
	if ((mode & S_IFMT) == S_IFREG || (mode & S_IFMT) == 0)
		return 0;
	tell(EV_CREATE, dir->mnt, dentry, dir->dentry, mode, dev);
	return 0;
}

SEC("lsm/path_mkdir")
int BPF_PROG(on_path_mkdir, struct path *dir, struct dentry *dentry, int mode)
{
	tell(EV_CREATE, dir->mnt, dentry, dir->dentry, (mode & 07777) | S_IFDIR, 0);
	return 0;
}

SEC("lsm/path_symlink")
int BPF_PROG(on_path_symlink, struct path *dir, struct dentry *dentry, const char *old_name)
{
	tell(EV_CREATE, dir->mnt, dentry, dir->dentry, S_IFLNK | 0777, 0);
	return 0;
}

SEC("lsm/path_link")
int BPF_PROG(on_path_link, struct dentry *old, struct path *dir, struct dentry *new)
{
	/* The old name's mount is not told; it must be the new one's. */
	tell_two(EV_LINK, dir->mnt, old, dir->mnt, new, 0);
	return 0;
}

SEC("lsm/path_rename")
int BPF_PROG(on_path_rename, struct path *old_dir, struct dentry *old, struct path *new_dir, struct dentry *new,
	     unsigned int flags)
{
	tell_two(EV_RENAME, old_dir->mnt, old, new_dir->mnt, new, flags);
	return 0;
}

static __always_inline bool is_dir(struct dentry *d)
{
	return (BPF_CORE_READ(d, d_inode, i_mode) & S_IFMT) == S_IFDIR;
}

/* The kind of object is checked after these two hooks; what cannot succeed is
 * not told (many programs try unlink before rmdir). */
SEC("lsm/path_unlink")
int BPF_PROG(on_path_unlink, struct path *dir, struct dentry *dentry)
{
	if (is_dir(dentry))
		return 0;
	tell(EV_UNLINK, dir->mnt, dentry, dir->dentry, 0, 0);
	return 0;
}

SEC("lsm/path_rmdir")
int BPF_PROG(on_path_rmdir, struct path *dir, struct dentry *dentry)
{
	if (!is_dir(dentry))
		return 0;
	tell(EV_UNLINK, dir->mnt, dentry, dir->dentry, 0, 0);
	return 0;
}

/* Neither hook is told the new length. */
SEC("lsm/path_truncate")
int BPF_PROG(on_path_truncate, struct path *path)
{
	tell(EV_TRUNCATE, path->mnt, path->dentry, 0, 0, 0);
	return 0;
}

SEC("lsm/file_truncate")
int BPF_PROG(on_file_truncate, struct file *file)
{
	tell_file(EV_TRUNCATE, file, 0, 0);
	return 0;
}

SEC("lsm/path_chmod")
int BPF_PROG(on_path_chmod, struct path *path, int mode)
{
	tell(EV_CHMOD, path->mnt, path->dentry, 0, mode & 07777, 0);
	return 0;
}

/* Ids are the initial user namespace's; all ones means unchanged. */
SEC("lsm/path_chown")
int BPF_PROG(on_path_chown, struct path *path, __u64 uid, __u64 gid)
{
	tell(EV_CHOWN, path->mnt, path->dentry, 0, 0, (gid << 32) | (uid & 0xffffffff));
	return 0;
}
