/* SPDX-License-Identifier: GPL-2.0 */
/* File events where BPF LSM is not to be had: from the ends of system calls
 * that succeeded. Where the call has a descriptor the object is the kernel's;
 * else the names are what the process has in its memory when the call is over
 * (FL_USER_PATH), which another thread may have changed by then. Calls of
 * 32-bit programs and io_uring do not come by here. */
#pragma once

#include "file.h"

/* Numbers of x86-64. */
#define NR_write 1
#define NR_open 2
#define NR_pwrite64 18
#define NR_writev 20
#define NR_sendfile 40
#define NR_truncate 76
#define NR_ftruncate 77
#define NR_rename 82
#define NR_mkdir 83
#define NR_rmdir 84
#define NR_creat 85
#define NR_link 86
#define NR_unlink 87
#define NR_symlink 88
#define NR_chmod 90
#define NR_fchmod 91
#define NR_chown 92
#define NR_fchown 93
#define NR_lchown 94
#define NR_mknod 133
#define NR_openat 257
#define NR_mkdirat 258
#define NR_mknodat 259
#define NR_fchownat 260
#define NR_unlinkat 263
#define NR_renameat 264
#define NR_linkat 265
#define NR_symlinkat 266
#define NR_fchmodat 268
#define NR_splice 275
#define NR_fallocate 285
#define NR_pwritev 296
#define NR_renameat2 316
#define NR_copy_file_range 326
#define NR_pwritev2 328
#define NR_openat2 437
#define NR_fchmodat2 452

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

/* append_dir appends the directory a relative name starts at. */
static __always_inline __u32 append_dir(struct scratch *s, struct task_struct *t, int fd)
{
	struct file *f;

	if (fd == AT_FDCWD)
		return walk(s, BPF_CORE_READ(t, fs, pwd.mnt), BPF_CORE_READ(t, fs, pwd.dentry));
	f = file_of(t, fd);
	if (!f)
		return 0;
	return walk(s, BPF_CORE_READ(f, f_path.mnt), BPF_CORE_READ(f, f_path.dentry));
}

struct call {
	__u32 type;
	int fd;
	const void *name;
	int fd2;
	const void *name2;
	__u32 arg;
	__u64 arg2;
};

static __always_inline void tell_named(struct task_struct *t, struct call *c)
{
	struct scratch *s;
	struct event_file *e;

	if (left_out(c->type))
		return;
	s = take(c->type, RING_BULK);
	if (!s)
		return;
	e = begin_file(s, c->type);
	e->arg = c->arg;
	e->arg2 = c->arg2;
	e->path_len = append_dir(s, t, c->fd);
	e->name_len = append_user(s, c->name);
	s->flags |= FL_USER_PATH;
	send(s, RING_BULK);
	give(s);
}

static __always_inline void tell_two_named(struct task_struct *t, struct call *c)
{
	struct scratch *s;
	struct event_rename *e;
	__u32 first;

	if (left_out(c->type))
		return;
	s = take(c->type, RING_BULK);
	if (!s)
		return;
	e = begin_rename(s, c->type);
	e->flags = c->arg;
	/* Two directories and two names do not fit at their longest; the
	 * second pair then is marked as cut. */
	e->old_len = append_dir(s, t, c->fd);
	e->old_name_len = append_user(s, c->name);
	first = s->flags;
	s->flags = 0;
	if (s->off < DATA_BYTES - MAX_PATH_BYTES)
		e->new_len = append_dir(s, t, c->fd2);
	else
		s->flags |= FL_PATH_TRUNC;
	if (s->off < DATA_BYTES - 4096)
		e->new_name_len = append_user(s, c->name2);
	else
		s->flags |= FL_PATH_TRUNC;
	if (s->flags & FL_PATH_TRUNC)
		first |= FL_PATH2_TRUNC;
	s->flags = first | FL_USER_PATH;
	send(s, RING_BULK);
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
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	if (BPF_CORE_READ(t, thread_info.status) & TS_COMPAT)
		return 0;
	bpf_tail_call(ctx, &exit_calls, BPF_CORE_READ(regs, orig_ax));
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_opened, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct file *f;

	switch (BPF_CORE_READ(regs, orig_ax)) {
	case NR_open:
	case NR_openat:
	case NR_openat2:
	case NR_creat:
		break;
	default:
		return 0;
	}
	if (failed(ret))
		return 0;
	f = file_of(t, ret);
	if (!f)
		return 0;
	/* Nothing tells when a description ends, so its address starts anew
	 * when the next is opened. */
	forget_writes(f);
	if (BPF_CORE_READ(f, f_mode) & FMODE_CREATED)
		tell_file(EV_CREATE, f, 0, 0);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_written, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	__u32 how = HOW_WRITE;
	struct file *f;
	int fd;

	switch (BPF_CORE_READ(regs, orig_ax)) {
	case NR_write:
	case NR_pwrite64:
	case NR_writev:
	case NR_pwritev:
	case NR_pwritev2:
		fd = BPF_CORE_READ(regs, di);
		break;
	case NR_sendfile:
		fd = BPF_CORE_READ(regs, di);
		how = HOW_COPY;
		break;
	case NR_copy_file_range:
	case NR_splice:
		fd = BPF_CORE_READ(regs, dx);
		how = HOW_COPY;
		break;
	case NR_fallocate:
		fd = BPF_CORE_READ(regs, di);
		how = HOW_FALLOCATE;
		break;
	default:
		return 0;
	}
	if (failed(ret) || (ret == 0 && how != HOW_FALLOCATE))
		return 0;
	f = file_of(t, fd);
	if (f)
		first_write(f, how);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_changed, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	__u32 type;
	struct file *f;

	switch (BPF_CORE_READ(regs, orig_ax)) {
	case NR_ftruncate:
		type = EV_TRUNCATE;
		break;
	case NR_fchmod:
		type = EV_CHMOD;
		break;
	case NR_fchown:
		type = EV_CHOWN;
		break;
	default:
		return 0;
	}
	if (failed(ret))
		return 0;
	f = file_of(t, BPF_CORE_READ(regs, di));
	if (!f)
		return 0;
	if (type == EV_CHOWN)
		tell_file(type, f, 0, BPF_CORE_READ(regs, dx) << 32 | (BPF_CORE_READ(regs, si) & 0xffffffff));
	else
		tell_file(type, f, BPF_CORE_READ(regs, si), BPF_CORE_READ(regs, si));
	return 0;
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
	switch (BPF_CORE_READ(regs, orig_ax)) {
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
		c.arg2 = b;
		break;
	case NR_mkdir:
		c.type = EV_CREATE;
		c.name = (void *)a;
		c.arg = (b & 07777) | S_IFDIR;
		break;
	case NR_mkdirat:
		c.type = EV_CREATE;
		c.fd = a;
		c.name = (void *)b;
		c.arg = (d & 07777) | S_IFDIR;
		break;
	case NR_mknod:
		c.type = EV_CREATE;
		c.name = (void *)a;
		c.arg = b;
		c.arg2 = d;
		break;
	case NR_mknodat:
		c.type = EV_CREATE;
		c.fd = a;
		c.name = (void *)b;
		c.arg = d;
		c.arg2 = e;
		break;
	case NR_symlink:
		c.type = EV_CREATE;
		c.name = (void *)b;
		c.arg = S_IFLNK | 0777;
		break;
	case NR_symlinkat:
		c.type = EV_CREATE;
		c.fd = b;
		c.name = (void *)d;
		c.arg = S_IFLNK | 0777;
		break;
	case NR_chmod:
		c.type = EV_CHMOD;
		c.name = (void *)a;
		c.arg = b;
		break;
	case NR_fchmodat:
	case NR_fchmodat2:
		c.type = EV_CHMOD;
		c.fd = a;
		c.name = (void *)b;
		c.arg = d;
		break;
	case NR_chown:
	case NR_lchown:
		c.type = EV_CHOWN;
		c.name = (void *)a;
		c.arg2 = d << 32 | (b & 0xffffffff);
		break;
	case NR_fchownat:
		c.type = EV_CHOWN;
		c.fd = a;
		c.name = (void *)b;
		c.arg2 = e << 32 | (d & 0xffffffff);
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
	switch (BPF_CORE_READ(regs, orig_ax)) {
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
