/* SPDX-License-Identifier: GPL-2.0 */
/* The system call that current is in, found from any hook. */
#pragma once

#include "maps.h"
#include "task.h"

#define NO_CALL -1
#define CS_USER 0x33 /* code segment of 64-bit programs */

struct registers {
	struct pt_regs *at;
	int nr; /* NO_CALL: none, or one of a 32-bit program, or a worker of io_uring */
	int nr32; /* of a 32-bit program */
};

/* x32 programs mark their calls; most are the same then as those of others, and
 * from 512 on are their own. */
#define X32_BIT 0x40000000
#define X32_FIRST 512

static __always_inline int number_of(struct pt_regs *regs)
{
	int nr = field(regs, orig_ax);

	if (nr < 0)
		return NO_CALL;
	nr &= ~X32_BIT;
	return nr < X32_FIRST ? nr : NO_CALL;
}

static __always_inline struct registers call(void)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct pt_regs *at;
	struct registers r;

	r.at = 0;
	r.nr = NO_CALL;
	r.nr32 = NO_CALL;
	if (BPF_CORE_READ(t, flags) & (PF_KTHREAD | PF_IO_WORKER))
		return r;
	at = registers();
	if (BPF_CORE_READ(t, thread_info.status) & TS_COMPAT)
		r.nr32 = BPF_CORE_READ(at, orig_ax);
	else if (BPF_CORE_READ(at, cs) == CS_USER)
		r.nr = number_of(at);
	r.at = at;
	return r;
}

/* act_flags says in which way a task acts. */
static __always_inline __u32 act_flags(struct task_struct *t)
{
	__u32 flags = 0;

	if (BPF_CORE_READ(t, flags) & PF_IO_WORKER)
		flags |= FL_IO_WORKER;
	if (BPF_CORE_READ(t, thread_info.status) & TS_COMPAT)
		flags |= FL_COMPAT;
	return flags;
}

/* Numbers of x86-64. */
#define NR_write 1
#define NR_close 3
#define NR_open 2
#define NR_mmap 9
#define NR_ioctl 16
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
#define NR_utime 132
#define NR_mknod 133
#define NR_pivot_root 155
#define NR_mount 165
#define NR_umount2 166
#define NR_setxattr 188
#define NR_lsetxattr 189
#define NR_fsetxattr 190
#define NR_removexattr 197
#define NR_lremovexattr 198
#define NR_fremovexattr 199
#define NR_io_submit 209
#define NR_utimes 235
#define NR_openat 257
#define NR_mkdirat 258
#define NR_mknodat 259
#define NR_fchownat 260
#define NR_futimesat 261
#define NR_unlinkat 263
#define NR_renameat 264
#define NR_linkat 265
#define NR_symlinkat 266
#define NR_fchmodat 268
#define NR_splice 275
#define NR_utimensat 280
#define NR_fallocate 285
#define NR_pwritev 296
#define NR_renameat2 316
#define NR_copy_file_range 326
#define NR_pwritev2 328
#define NR_open_by_handle_at 304
#define NR_move_mount 429
#define NR_fsconfig 431
#define NR_io_uring_enter 426
#define NR_openat2 437
#define NR_mount_setattr 442
#define NR_fchmodat2 452
#define NR_setxattrat 463
#define NR_removexattrat 466
#define NR_file_setattr 469

/* Of 32-bit programs. */
#define NR32_mknod 14
#define NR32_mknodat 297
