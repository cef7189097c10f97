/* SPDX-License-Identifier: GPL-2.0 */
/* Processes: the backbone that works on every kernel and is not hooked through
 * ftrace. */
#pragma once

#include "path.h"

static __always_inline void fill_task(struct event_task *e, struct task_struct *t)
{
	const struct cred *c = BPF_CORE_READ(t, cred);
	struct task_struct *parent = BPF_CORE_READ(t, real_parent);

	e->start = BPF_CORE_READ(t, group_leader, start_boottime);
	e->parent_start = BPF_CORE_READ(parent, group_leader, start_boottime);
	e->tgid = BPF_CORE_READ(t, tgid);
	e->ppid = BPF_CORE_READ(parent, tgid);
	e->uid = BPF_CORE_READ(c, uid.val);
	e->gid = BPF_CORE_READ(c, gid.val);
	e->euid = BPF_CORE_READ(c, euid.val);
	e->egid = BPF_CORE_READ(c, egid.val);
	e->suid = BPF_CORE_READ(c, suid.val);
	e->sgid = BPF_CORE_READ(c, sgid.val);
	e->fsuid = BPF_CORE_READ(c, fsuid.val);
	e->fsgid = BPF_CORE_READ(c, fsgid.val);
	bpf_core_read(&e->cap_effective, sizeof(e->cap_effective), &c->cap_effective);
	e->cgroup = BPF_CORE_READ(t, cgroups, dfl_cgrp, kn, id);
	e->mntns = mount_namespace(t);
	e->flags = (BPF_CORE_READ(t, flags) & PF_KTHREAD) != 0;
	e->loginuid = -1;
	e->sessionid = -1;
	if (bpf_core_field_exists(t->loginuid)) {
		e->loginuid = BPF_CORE_READ(t, loginuid.val);
		e->sessionid = BPF_CORE_READ(t, sessionid);
	}
	bpf_core_read(&e->comm, sizeof(e->comm), &t->comm);
}

static __always_inline void exec_arguments(struct scratch *s, struct event_exec *e, struct mm_struct *mm)
{
	unsigned long from = BPF_CORE_READ(mm, arg_start);
	unsigned long to = BPF_CORE_READ(mm, arg_end);
	__u32 off = s->off & (DATA_BYTES - 1);
	__u64 n = to - from;

	e->args_total = n;
	if (n == 0)
		return;
	if (n > 4096) {
		n = 4096;
		s->flags |= FL_ARGS_TRUNC;
	}
	/* The bound must be plain to a verifier that has lost the relation
	 * between the comparison above and n. */
	n = ((n - 1) & 4095) + 1;
	if (bpf_probe_read_user(&s->data[off], n, (void *)from)) {
		s->flags |= FL_ARGS_TRUNC;
		return;
	}
	e->args_len = n;
	s->off = off + n;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	struct scratch *s = take(EV_EXEC, RING_CRIT);
	struct event_exec *e;
	struct file *f;
	struct inode *i;
	const char *filename, *interp;
	__u64 place;
	__u32 off;
	long n;

	if (!s)
		return 0;
	e = (struct event_exec *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	head(&e->h, EV_EXEC, p);
	fill_task(&e->t, p);

	f = BPF_CORE_READ(bprm, file);
	i = BPF_CORE_READ(f, f_inode);
	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	e->ino = BPF_CORE_READ(i, i_ino);
	e->size = BPF_CORE_READ(i, i_size);
	e->mode = BPF_CORE_READ(i, i_mode);
	e->nlink = BPF_CORE_READ(i, i_nlink);
	e->mtime = modified(i);
	e->ctime = changed(i);
	e->path_len = walk(s, BPF_CORE_READ(f, f_path.mnt), BPF_CORE_READ(f, f_path.dentry));
	e->inner_len = s->inner;
	place = s->place;
	note_deleted(s, BPF_CORE_READ(f, f_path.dentry), i);

	/* The working directory's own truncation must not look like one of the
	 * executable's path. */
	{
		__u32 flags = s->flags, mine;

		s->flags = 0;
		e->cwd_len = walk(s, BPF_CORE_READ(p, fs, pwd.mnt), BPF_CORE_READ(p, fs, pwd.dentry));
		mine = s->flags;
		s->flags = flags;
		if (mine & FL_PATH_TRUNC)
			s->flags |= FL_PATH2_TRUNC;
		if (mine & FL_DETACHED)
			s->flags |= FL_DETACHED2;
	}

	filename = BPF_CORE_READ(bprm, filename);
	interp = BPF_CORE_READ(bprm, interp);
	if (filename != interp)
		s->flags |= FL_SCRIPT;
	if (s->off < DATA_BYTES - 8192) {
		off = s->off & (DATA_BYTES - 1);
		n = bpf_probe_read_kernel_str(&s->data[off], 4096, filename);
		if (n > 0) {
			e->filename_len = n;
			s->off = off + n;
		}
	}
	if (s->off < DATA_BYTES - 4096)
		exec_arguments(s, e, BPF_CORE_READ(p, mm));
	else
		s->flags |= FL_ARGS_TRUNC;
	s->place = place;
	if (s->off < DATA_BYTES - MAX_PLACE_BYTES)
		e->place_len = walk_place(s);
	send(s, RING_CRIT);
	give(s);
	return 0;
}

/* A process may give itself any name. exec does it as well, and tells itself. */
SEC("tp_btf/task_rename")
int BPF_PROG(on_comm, struct task_struct *t, const char *comm)
{
	struct event_comm e = {};

	if (BPF_CORE_READ(t, pid) != BPF_CORE_READ(t, tgid) || BPF_CORE_READ_BITFIELD_PROBED(t, in_execve))
		return 0;
	head(&e.h, EV_COMM, t);
	e.h.tgid = BPF_CORE_READ(t, tgid); /* another thread may have done it */
	bpf_core_read(&e.before, sizeof(e.before), &t->comm);
	bpf_probe_read_kernel_str(&e.after, sizeof(e.after), comm);
	emit(&e, sizeof(e), wanted(OPT_COMM) ? 0 : FL_NOTE, RING_CRIT);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct event_fork e = {};

	if (BPF_CORE_READ(child, pid) != BPF_CORE_READ(child, tgid))
		return 0; /* a thread */
	head(&e.h, EV_FORK, parent);
	fill_task(&e.t, child);
	emit(&e, sizeof(e), 0, RING_CRIT);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *p)
{
	struct event_exit e = {};
	struct signal_struct *sig = BPF_CORE_READ(p, signal);

	if (BPF_CORE_READ(sig, live.counter) != 0)
		return 0; /* other threads go on */
	head(&e.h, EV_EXIT, p);
	if (BPF_CORE_READ(sig, nr_threads) > 1) {
		/* Two last threads may both find that none is left. */
		struct exit_key key = { .start = e.h.start, .tgid = e.h.tgid };
		__u8 one = 1;

		if (bpf_map_update_elem(&gone, &key, &one, BPF_NOEXIST) == -EEXIST)
			return 0;
	}
	e.peak = BPF_CORE_READ(sig, maxrss);
	if (BPF_CORE_READ(sig, flags) & SIGNAL_GROUP_EXIT)
		e.h.arg = BPF_CORE_READ(sig, group_exit_code);
	else
		e.h.arg = BPF_CORE_READ(p, group_leader, exit_code);
	emit(&e, sizeof(e), 0, RING_CRIT);
	return 0;
}

/* The processes that run already when the agent starts. */
SEC("iter/task")
int list_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct event_task e = {};

	if (!t)
		return 0;
	if (BPF_CORE_READ(t, pid) != BPF_CORE_READ(t, tgid))
		return 0;
	fill_task(&e, t);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}
