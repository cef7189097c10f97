/* SPDX-License-Identifier: GPL-2.0 */
/* File events where BPF LSM is not to be had: from the ends of system calls
 * that succeeded. Where the call has a descriptor the object is the kernel's;
 * else the names are what the process has in its memory when the call is over
 * (FL_USER_PATH), which another thread may have changed by then. Calls of
 * 32-bit programs and io_uring do not come by here. */
#pragma once

#include "mount.h"
#include "task.h"
#include "written.h"

#include <linux/aio_abi.h>
#include <linux/io_uring.h>

#define AT_FDCWD -100

static __always_inline struct file *file_of(struct task_struct *t, int fd)
{
	struct fdtable *table = BPF_CORE_READ(t, files, fdt);
	struct file **slots, *f = 0;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	slots = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&f, sizeof(f), &slots[fd]);
	return f;
}

/* open_file is file_of current, for the calls that are made most. */
static __always_inline struct file *open_file(int fd)
{
	struct files_struct *files = field(current_task(), files);
	struct fdtable *table = files ? field(files, fdt) : 0;
	struct file **slots, *f = 0;

	if (!table || fd < 0 || (__u32)fd >= field(table, max_fds))
		return 0;
	slots = field(table, fd);
	bpf_probe_read_kernel(&f, sizeof(f), &slots[fd]);
	return f;
}

/* base_of finds the directory that a name starts at: of an absolute one the
 * process's root, which need not be the name space's. */
static __always_inline bool base_of(struct task_struct *t, int fd, const void *name, struct path *base)
{
	struct file *f;
	char first = 0;

	bpf_probe_read_user(&first, sizeof(first), name);
	if (first == '/') {
		base->mnt = BPF_CORE_READ(t, fs, root.mnt);
		base->dentry = BPF_CORE_READ(t, fs, root.dentry);
		return true;
	}
	if (fd == AT_FDCWD) {
		base->mnt = BPF_CORE_READ(t, fs, pwd.mnt);
		base->dentry = BPF_CORE_READ(t, fs, pwd.dentry);
		return true;
	}
	f = file_of(t, fd);
	if (!f)
		return false;
	base->mnt = BPF_CORE_READ(f, f_path.mnt);
	base->dentry = BPF_CORE_READ(f, f_path.dentry);
	return true;
}

static __always_inline __u32 append_dir(struct scratch *s, struct task_struct *t, int fd, const void *name)
{
	struct path base;

	if (!base_of(t, fd, name, &base))
		return 0;
	return walk(s, base.mnt, base.dentry);
}

#define PLAIN_NAME_BYTES 64

/* plain_name says whether a name is of a file in the directory that it starts
 * at: one component, and not too long to look at. */
static __always_inline bool plain_name(const void *name)
{
	char b[PLAIN_NAME_BYTES] = {};
	long n = bpf_probe_read_user_str(b, sizeof(b), name);

	if (n <= 1 || n >= PLAIN_NAME_BYTES)
		return false;
	for (int i = 0; i < PLAIN_NAME_BYTES; i++) {
		if (b[i] == '/')
			return false;
	}
	return true;
}

/* fold_named is fold for a name that was passed. Where it leads elsewhere than
 * into the directory that it starts at, the act is told by itself. */
static __always_inline __u32 fold_named(__u32 type, struct task_struct *t, int fd, const void *name)
{
	struct bucket *b = over_budget();
	struct path base;

	if (!b)
		return 0;
	if (!(BIT(type & (EV_TYPES - 1)) & FOLDED_TYPES) || !plain_name(name))
		return weight(type);
	if (!base_of(t, fd, name, &base) || !fold_file(b, type, base.mnt, base.dentry, 0, FL_USER_PATH))
		return weight(type);
	return FOLDED;
}

struct call {
	__u32 type;
	int fd;
	const void *name;
	int fd2;
	const void *name2;
	const void *extra; /* a string of the process's */
	__u32 arg;
	__u32 mode;
	__u32 dev;
	__u32 uid, gid;
	__u64 arg2;
	__u64 size;
};

static __always_inline void tell_named(struct task_struct *t, struct call *c)
{
	struct scratch *s;
	struct event_file *e;
	__u32 f;

	if (left_out(c->type))
		return;
	f = fold_named(c->type, t, c->fd, c->name);
	if (f == FOLDED)
		return;
	s = take(c->type, RING_BULK);
	if (!s)
		return;
	e = begin_file(s, c->type);
	e->arg = c->arg;
	e->arg2 = c->arg2;
	e->mode = c->mode;
	e->rdev = c->dev;
	e->uid = c->uid;
	e->gid = c->gid;
	e->size = c->size;
	e->path_len = append_dir(s, t, c->fd, c->name);
	e->name_len = append_user(s, c->name);
	if (c->extra)
		e->extra_len = append_user(s, c->extra);
	s->flags |= FL_USER_PATH | FL_RESULT | f;
	send(s, e, RING_BULK);
	give(s);
}

static __always_inline void tell_two_named(struct task_struct *t, struct call *c)
{
	struct scratch *s;
	struct event_rename *e;
	__u32 first, heavy;

	if (left_out(c->type))
		return;
	heavy = over_budget() ? weight(c->type) : 0;
	s = take(c->type, RING_BULK);
	if (!s)
		return;
	e = begin_rename(s, c->type);
	e->flags = c->arg;
	/* Two directories and two names do not fit at their longest; the
	 * second pair then is marked as cut. */
	e->old_len = append_dir(s, t, c->fd, c->name);
	e->old_name_len = append_user(s, c->name);
	first = s->flags;
	s->flags = 0;
	if (s->off < DATA_BYTES - MAX_PATH_BYTES)
		e->new_len = append_dir(s, t, c->fd2, c->name2);
	else
		s->flags |= FL_PATH_TRUNC;
	if (s->off < DATA_BYTES - 4096)
		e->new_name_len = append_user(s, c->name2);
	else
		s->flags |= FL_PATH_TRUNC;
	if (s->flags & FL_PATH_TRUNC)
		first |= FL_PATH2_TRUNC;
	s->flags = first | FL_USER_PATH | FL_RESULT | heavy;
	send(s, e, RING_BULK);
	give(s);
}

static __always_inline bool failed(long ret)
{
	return ret < 0 && ret >= -4095;
}

/* What a system call's end is handled by, by the call's number; user space
 * fills it. One program looks at every call and costs those that nobody wants
 * no more than a look into this table. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 512);
	__type(key, __u32);
	__type(value, __u32);
} exit_calls SEC(".maps");

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long ret)
{
	struct task_struct *t = current_task();

	if (field(t, thread_info.status) & TS_COMPAT)
		return 0;
	bpf_tail_call(ctx, &exit_calls, number_of(regs));
	return 0;
}

/* open_flags are what open(2) and its kin were called with. */
static __always_inline __u64 open_flags(struct pt_regs *regs)
{
	__u64 flags = 0;

	switch (number_of(regs)) {
	case NR_open:
		return BPF_CORE_READ(regs, si);
	case NR_openat:
	case NR_open_by_handle_at:
		return BPF_CORE_READ(regs, dx);
	case NR_creat:
		return O_TRUNC_BIT;
	case NR_openat2:
		bpf_probe_read_user(&flags, sizeof(flags), (void *)BPF_CORE_READ(regs, dx));
	}
	return flags;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_opened, struct pt_regs *regs, long ret)
{
	struct more m = { .flags = FL_RESULT };
	struct file *f;
	struct inode *i;
	__u64 key;
	__u32 type = EV_CREATE;

	if (failed(ret))
		return 0;
	f = open_file(ret);
	if (!f)
		return 0;
	/* Nothing tells when a description ends, so its address starts anew
	 * when the next is opened. */
	key = (__u64)f;
	bpf_map_delete_elem(&wr, &key);
	i = BPF_CORE_READ(f, f_inode);
	if (BPF_CORE_READ(f, f_flags) & O_TMPFILE_BIT) {
		m.flags |= temporary(f, i);
	} else if (!(BPF_CORE_READ(f, f_mode) & FMODE_CREATED)) {
		if (!(open_flags(regs) & O_TRUNC_BIT) || !(BPF_CORE_READ(f, f_mode) & FMODE_WRITE))
			return 0;
		if ((BPF_CORE_READ(i, i_mode) & S_IFMT) != S_IFREG || of_kernel(BPF_CORE_READ(i, i_sb)))
			return 0;
		type = EV_TRUNCATE;
	}
	tell_file(type, f, &m);
	return 0;
}

static __always_inline void wrote(struct file *f, __u32 how, __u64 bytes)
{
	if (f && holds_data(BPF_CORE_READ(f, f_inode, i_mode)))
		written(f, how, bytes, true);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_written, struct pt_regs *regs, long ret)
{
	__u32 how = HOW_WRITE;
	int fd = field(regs, di);

	switch (number_of(regs)) {
	case NR_sendfile:
		how = HOW_COPY;
		break;
	case NR_copy_file_range:
	case NR_splice:
		fd = field(regs, dx);
		how = HOW_COPY;
		break;
	case NR_fallocate:
		how = HOW_FALLOCATE;
		break;
	}
	if (failed(ret) || (ret == 0 && how != HOW_FALLOCATE))
		return 0;
	wrote(open_file(fd), how, ret);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_mapped, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	unsigned long flags = BPF_CORE_READ(regs, r10);

	if (!(flags & MAP_SHARED_BIT) || !(BPF_CORE_READ(regs, dx) & PROT_WRITE) || failed(ret))
		return 0;
	if (!(flags & MAP_ANONYMOUS_BIT))
		wrote(file_of(t, BPF_CORE_READ(regs, r8)), HOW_MMAP, 0);
	return 0;
}

/* Linux AIO: the first that io_submit(2) took, as the process's memory has it still. */
#define MAX_IOCBS 4

SEC("tp_btf/sys_exit")
int BPF_PROG(on_submitted, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const void *list = (void *)BPF_CORE_READ(regs, dx);
	struct iocb cb;
	const void *at;
	int i;

	for (i = 0; i < MAX_IOCBS; i++) {
		if (i >= ret)
			return 0;
		if (bpf_probe_read_user(&at, sizeof(at), list + i * sizeof(at)) || bpf_probe_read_user(&cb, sizeof(cb), at))
			return 0;
		if (cb.aio_lio_opcode == IOCB_CMD_PWRITE || cb.aio_lio_opcode == IOCB_CMD_PWRITEV)
			wrote(file_of(t, cb.aio_fildes), HOW_WRITE, 0);
	}
	return 0;
}

#define REQ_F_FIXED_FILE 1

/* io_uring, when a request is taken: 6.4 and later have this with the request
 * as its only argument. */
SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(on_uring_request, struct io_kiocb *req)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	__u32 how = HOW_WRITE;
	struct file *f;

	switch (BPF_CORE_READ(req, opcode)) {
	case IORING_OP_FALLOCATE:
		how = HOW_FALLOCATE;
		break;
	case IORING_OP_SPLICE:
		how = HOW_COPY;
		break;
	case IORING_OP_WRITEV:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_WRITE:
		break;
	default:
		return 0;
	}
	f = BPF_CORE_READ(req, file);
	if (!f && !(BPF_CORE_READ(req, flags) & REQ_F_FIXED_FILE))
		f = file_of(t, BPF_CORE_READ(req, cqe.fd));
	wrote(f, how, 0);
	return 0;
}

/* Changes through a descriptor. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_changed, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct more m = { .flags = FL_RESULT };
	__u32 type;
	struct file *f;

	if (failed(ret))
		return 0;
	f = file_of(t, BPF_CORE_READ(regs, di));
	if (!f)
		return 0;
	switch (number_of(regs)) {
	case NR_ftruncate:
		type = EV_TRUNCATE;
		break;
	case NR_fchmod:
		type = EV_CHMOD;
		break;
	case NR_fchown:
		type = EV_CHOWN;
		break;
	case NR_ioctl:
		if ((__u32)BPF_CORE_READ(regs, si) == FS_IOC_SETFLAGS)
			bpf_probe_read_user(&m.arg, sizeof(m.arg), (void *)BPF_CORE_READ(regs, dx));
		else if ((__u32)BPF_CORE_READ(regs, si) == FS_IOC_FSSETXATTR)
			m.arg2 = 1; /* other numbers: which flags they make is not known */
		else
			return 0;
		type = EV_ATTRIBUTES;
		break;
	default:
		return 0;
	}
	tell_file(type, f, &m);
	return 0;
}

/* new_device turns the number that a program passes into the kernel's own. */
static __always_inline __u32 new_device(__u32 dev)
{
	return (dev & 0xfff00) << 12 | (dev & 0xff) | (dev >> 12 & 0xfff00);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_named, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct call c = { .fd = AT_FDCWD };
	unsigned long a = BPF_CORE_READ(regs, di), b = BPF_CORE_READ(regs, si);
	unsigned long d = BPF_CORE_READ(regs, dx), e = BPF_CORE_READ(regs, r10);

	if (failed(ret))
		return 0;
	switch (number_of(regs)) {
	case NR_unlink:
	case NR_rmdir:
		c.type = EV_UNLINK;
		c.name = (void *)a;
		break;
	case NR_unlinkat:
		c.type = EV_UNLINK;
		c.fd = a;
		c.name = (void *)b;
		break;
	case NR_truncate:
		c.type = EV_TRUNCATE;
		c.name = (void *)a;
		c.size = b;
		break;
	case NR_mkdir:
		c.type = EV_CREATE;
		c.name = (void *)a;
		c.mode = (b & 07777) | S_IFDIR;
		break;
	case NR_mkdirat:
		c.type = EV_CREATE;
		c.fd = a;
		c.name = (void *)b;
		c.mode = (d & 07777) | S_IFDIR;
		break;
	case NR_mknod:
		c.type = EV_CREATE;
		c.name = (void *)a;
		c.mode = b;
		c.dev = new_device(d);
		break;
	case NR_mknodat:
		c.type = EV_CREATE;
		c.fd = a;
		c.name = (void *)b;
		c.mode = d;
		c.dev = new_device(e);
		break;
	case NR_symlink:
		c.type = EV_CREATE;
		c.name = (void *)b;
		c.extra = (void *)a;
		c.mode = S_IFLNK | 0777;
		break;
	case NR_symlinkat:
		c.type = EV_CREATE;
		c.fd = b;
		c.name = (void *)d;
		c.extra = (void *)a;
		c.mode = S_IFLNK | 0777;
		break;
	case NR_chmod:
		c.type = EV_CHMOD;
		c.name = (void *)a;
		c.mode = b & 07777;
		break;
	case NR_fchmodat:
	case NR_fchmodat2:
		c.type = EV_CHMOD;
		c.fd = a;
		c.name = (void *)b;
		c.mode = d & 07777;
		break;
	case NR_chown:
	case NR_lchown:
		c.type = EV_CHOWN;
		c.name = (void *)a;
		c.uid = b;
		c.gid = d;
		break;
	case NR_fchownat:
		c.type = EV_CHOWN;
		c.fd = a;
		c.name = (void *)b;
		c.uid = d;
		c.gid = e;
		break;
	default:
		return 0;
	}
	tell_named(t, &c);
	return 0;
}

/* Extended attributes and times, of a descriptor. */
/* marked tells of new times of an open file. */
static __noinline int marked(struct task_struct *t, int fd)
{
	struct more m = { .flags = FL_RESULT, .extra_len = sizeof(struct file_times) };
	struct file_times times;
	struct file *f = file_of(t, fd);
	struct inode *i;

	if (!f)
		return 0;
	i = BPF_CORE_READ(f, f_inode);
	times.atime = accessed(i);
	times.mtime = modified(i);
	times.ctime = changed(i);
	m.extra = &times;
	tell_file(EV_UTIME, f, &m);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_marked_file, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct more m = { .flags = FL_RESULT };
	unsigned long b = BPF_CORE_READ(regs, si);
	struct file *f;

	if (failed(ret))
		return 0;
	f = file_of(t, BPF_CORE_READ(regs, di));
	if (!f)
		return 0;
	switch (number_of(regs)) {
	case NR_fsetxattr:
		m.arg2 = BPF_CORE_READ(regs, r10);
		m.extra = (void *)b;
		m.of_user = true;
		break;
	case NR_fremovexattr:
		m.arg = 1;
		m.extra = (void *)b;
		m.of_user = true;
		break;
	default:
		return 0;
	}
	tell_file(EV_XATTR, f, &m);
	return 0;
}

/* Of a name. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_marked, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct call c = { .fd = AT_FDCWD };
	unsigned long a = BPF_CORE_READ(regs, di), b = BPF_CORE_READ(regs, si);

	if (failed(ret))
		return 0;
	c.name = (void *)a;
	switch (number_of(regs)) {
	case NR_setxattr:
	case NR_lsetxattr:
		c.type = EV_XATTR;
		c.extra = (void *)b;
		c.arg2 = BPF_CORE_READ(regs, r10);
		break;
	case NR_removexattr:
	case NR_lremovexattr:
		c.type = EV_XATTR;
		c.extra = (void *)b;
		c.arg = 1;
		break;
	case NR_utime:
	case NR_utimes:
		c.type = EV_UTIME;
		break;
	case NR_futimesat:
	case NR_utimensat:
		if (!b)
			return marked(t, a);
		c.type = EV_UTIME;
		c.fd = a;
		c.name = (void *)b;
		break;
	default:
		return 0;
	}
	tell_named(t, &c);
	return 0;
}
SEC("tp_btf/sys_exit")
int BPF_PROG(on_renamed, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct call c = { .fd = AT_FDCWD, .fd2 = AT_FDCWD, .type = EV_RENAME };
	unsigned long a = BPF_CORE_READ(regs, di), b = BPF_CORE_READ(regs, si);

	if (failed(ret))
		return 0;
	switch (number_of(regs)) {
	case NR_link:
		c.type = EV_LINK;
	case NR_rename:
		c.name = (void *)a;
		c.name2 = (void *)b;
		break;
	case NR_linkat:
		c.type = EV_LINK;
		c.fd = a;
		c.name = (void *)b;
		c.fd2 = BPF_CORE_READ(regs, dx);
		c.name2 = (void *)BPF_CORE_READ(regs, r10);
		break;
	case NR_renameat2:
		c.arg = BPF_CORE_READ(regs, r8);
	case NR_renameat:
		c.fd = a;
		c.name = (void *)b;
		c.fd2 = BPF_CORE_READ(regs, dx);
		c.name2 = (void *)BPF_CORE_READ(regs, r10);
		break;
	default:
		return 0;
	}
	tell_two_named(t, &c);
	return 0;
}

/* Changes of the tree of mounts, by names. */
struct mount_call {
	__u32 type;
	__u32 operation;
	__u32 api;
	int fd, fd2;
	const void *place;
	const void *source;
	const void *fs; /* type */
	const void *from;
	__u64 flags;
};

static __always_inline void tell_mount_named(struct task_struct *t, struct mount_call *c)
{
	struct event_mount *e;
	struct scratch *s;

	if (left_out(c->type))
		return;
	s = take(c->type, RING_CRIT);
	if (!s)
		return;
	e = begin_mount(s, c->type, c->operation, c->api, c->flags);
	e->path_len = append_dir(s, t, c->fd, c->place);
	e->name_len = append_user(s, c->place);
	s->flags |= FL_USER_PATH | FL_RESULT;
	if (c->source)
		e->source_len = append_user_text(s, c->source);
	if (c->fs)
		e->type_len = append_user_text(s, c->fs);
	if (c->from) {
		__u32 flags = s->flags;

		s->flags = 0;
		if (s->off < DATA_BYTES - MAX_PATH_BYTES)
			e->from_len = append_dir(s, t, c->fd2, c->from);
		else
			s->flags |= FL_PATH_TRUNC;
		if (s->off < DATA_BYTES - 4096)
			e->from_name_len = append_user(s, c->from);
		else
			s->flags |= FL_PATH_TRUNC;
		if (s->flags & FL_PATH_TRUNC)
			flags |= FL_PATH2_TRUNC;
		s->flags = flags;
	}
	send(s, e, RING_CRIT);
	give(s);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_mounts, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct mount_call c = { .type = EV_MOUNT, .api = API_MOUNT, .fd = AT_FDCWD, .fd2 = AT_FDCWD };
	unsigned long a = BPF_CORE_READ(regs, di), b = BPF_CORE_READ(regs, si);
	unsigned long d = BPF_CORE_READ(regs, dx), e = BPF_CORE_READ(regs, r10);

	if (failed(ret))
		return 0;
	switch (number_of(regs)) {
	case NR_mount:
		c.flags = (e & MS_MGC_MSK) == MS_MGC_VAL ? e & ~MS_MGC_MSK : e;
		c.operation = operation_of(c.flags);
		c.source = (void *)a;
		c.place = (void *)b;
		if (c.operation == MOUNT_NEW)
			c.fs = (void *)d;
		break;
	case NR_umount2:
		c.type = EV_UNMOUNT;
		c.operation = MOUNT_UNMOUNT;
		c.place = (void *)a;
		c.flags = b;
		break;
	case NR_mount_setattr:
		c.operation = MOUNT_SETATTR;
		c.api = API_MOUNT_SETATTR;
		c.fd = a;
		c.place = (void *)b;
		bpf_probe_read_user(&c.flags, sizeof(c.flags), (void *)e); /* attributes that are set */
		break;
	default:
		return 0;
	}
	tell_mount_named(t, &c);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_moved, struct pt_regs *regs, long ret)
{
	struct mount_call c = { .fd = AT_FDCWD, .fd2 = AT_FDCWD };
	unsigned long a = BPF_CORE_READ(regs, di), b = BPF_CORE_READ(regs, si);

	if (failed(ret))
		return 0;
	c.from = (void *)b;
	if (number_of(regs) == NR_pivot_root) {
		c.type = EV_PIVOT;
		c.operation = MOUNT_PIVOT;
		c.api = API_MOUNT;
		c.place = (void *)a;
	} else {
		c.type = EV_MOUNT;
		c.operation = MOUNT_MOVE;
		c.api = API_MOVE_MOUNT;
		c.fd = BPF_CORE_READ(regs, dx);
		c.place = (void *)BPF_CORE_READ(regs, r10);
		c.fd2 = a;
		c.flags = BPF_CORE_READ(regs, r8);
	}
	tell_mount_named((struct task_struct *)bpf_get_current_task(), &c);
	return 0;
}

/* For mode lsm as well: no other hook has it. */
SEC("fexit/__x64_sys_mount_setattr")
int BPF_PROG(on_mount_setattr, struct pt_regs *regs, long ret)
{
	struct mount_call c = { .type = EV_MOUNT, .operation = MOUNT_SETATTR, .api = API_MOUNT_SETATTR };

	if (failed(ret))
		return 0;
	c.fd = BPF_CORE_READ(regs, di);
	c.place = (void *)BPF_CORE_READ(regs, si);
	bpf_probe_read_user(&c.flags, sizeof(c.flags), (void *)BPF_CORE_READ(regs, r10));
	tell_mount_named((struct task_struct *)bpf_get_current_task(), &c);
	return 0;
}
