/* SPDX-License-Identifier: GPL-2.0 */
/* Processes: the backbone that works on every kernel and is not hooked through
 * ftrace. */
#pragma once

#include "acts.h"
#include "namespace.h"
#include "init.h"
#include "origin.h"
#include "path.h"
#include "task.h"

static __always_inline void fill_ids(struct event_task *e, const struct cred *c)
{
	e->uid = BPF_CORE_READ(c, uid.val);
	e->gid = BPF_CORE_READ(c, gid.val);
	e->euid = BPF_CORE_READ(c, euid.val);
	e->egid = BPF_CORE_READ(c, egid.val);
	e->suid = BPF_CORE_READ(c, suid.val);
	e->sgid = BPF_CORE_READ(c, sgid.val);
	e->fsuid = BPF_CORE_READ(c, fsuid.val);
	e->fsgid = BPF_CORE_READ(c, fsgid.val);
	e->cap_effective = capabilities(&c->cap_effective);
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

static __always_inline bool compat(struct task_struct *t)
{
	return BPF_CORE_READ(t, thread_info.status) & TS_COMPAT;
}

static __always_inline __u32 compat_flag(struct task_struct *t)
{
	return compat(t) ? FL_COMPAT : 0;
}

/* What executions that have not ended yet gain, by their task: enum gained. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} gains SEC(".maps");

/* note_gains looks at the credentials right before they become those of the
 * process. Root by its id has all capabilities anyway: those of the file then
 * mean nothing. */
static __always_inline void note_gains(struct linux_binprm *bprm)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const struct cred *old = BPF_CORE_READ(t, cred), *new = BPF_CORE_READ(bprm, cred);
	__u64 key = (__u64)t;
	__u32 gained = 0;

	if (BPF_CORE_READ(new, euid.val) != BPF_CORE_READ(old, euid.val))
		gained |= GAINED_UID;
	if (BPF_CORE_READ(new, egid.val) != BPF_CORE_READ(old, egid.val))
		gained |= GAINED_GID;
	if (capabilities(&new->cap_permitted) & ~capabilities(&old->cap_permitted) && BPF_CORE_READ(new, euid.val) &&
	    BPF_CORE_READ(new, uid.val))
		gained |= GAINED_CAPS;
	if (compat(t))
		gained |= GAINED_COMPAT;
	if (gained)
		bpf_map_update_elem(&gains, &key, &gained, BPF_ANY);
	else /* what an execution has left that was killed on its way */
		bpf_map_delete_elem(&gains, &key);
}

SEC("tp_btf/sched_prepare_exec")
int BPF_PROG(on_prepare_exec, struct task_struct *t, struct linux_binprm *bprm)
{
	note_gains(bprm);
	return 0;
}

/* The same before 6.9. */
SEC("lsm/bprm_committing_creds")
int BPF_PROG(on_committing_creds, struct linux_binprm *bprm)
{
	note_gains(bprm);
	return 0;
}

/* marks takes the child that the agent has announced as the one that acts for it. */
static __always_inline bool marks(struct task_struct *parent, struct task_struct *child)
{
	struct config *c = configuration();
	struct course *r = under_way();
	__u32 zero = 0;
	struct switches *w = bpf_map_lookup_elem(&orders, &zero);

	if (!c || !r || !w || !w->canary || BPF_CORE_READ(parent, tgid) != c->self || !own(EV_FORK))
		return false;
	w->canary = 0;
	__builtin_memset(r->acts, 0, sizeof(r->acts));
	r->image = (__u64)BPF_CORE_READ(parent, mm, exe_file, f_inode);
	r->since = bpf_ktime_get_boot_ns();
	r->canary = BPF_CORE_READ(child, tgid);
	return true;
}

/* unmark says whether it was the canary that ended: its end is left out, as its
 * beginning was. */
static __always_inline bool unmark(struct task_struct *t)
{
	struct course *c = under_way();

	if (!c || c->canary != BPF_CORE_READ(t, tgid))
		return false;
	own(EV_EXIT);
	c->canary = 0;
	return true;
}

/* own_image says whether it is the canary that becomes the agent's program. One
 * that becomes another is the canary no more, and an agent that does is told. */
static __always_inline bool own_image(struct task_struct *t, struct linux_binprm *bprm)
{
	struct course *c = under_way();

	if (!c || c->canary != BPF_CORE_READ(t, tgid))
		return false;
	if ((__u64)BPF_CORE_READ(bprm, file, f_inode) == c->image && own(EV_EXEC))
		return true;
	c->canary = 0;
	return false;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	struct scratch *s;
	struct event_exec *e;
	struct file *f;
	struct inode *i;
	struct dentry *d;
	const char *filename, *interp;
	__u64 place, key = (__u64)p;
	struct origin from = {};
	__u32 off, *gained;
	long n;

	note_init(p, BPF_CORE_READ(bprm, file, f_path.dentry));
	s = own_image(p, bprm) ? 0 : take(EV_EXEC, RING_CRIT);
	if (!s)
		return 0;
	e = (struct event_exec *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	head_of(&e->h, EV_EXEC, p);
	fill_task(&e->t, p);

	/* What was passed comes first: it is bounded, and a deep directory must
	 * not push it out. */
	filename = BPF_CORE_READ(bprm, filename);
	interp = BPF_CORE_READ(bprm, interp);
	if (filename != interp)
		s->flags |= FL_SCRIPT;
	off = s->off & (DATA_BYTES - 1);
	n = bpf_probe_read_kernel_str(&s->data[off], 4096, filename);
	if (n > 0) {
		e->filename_len = n;
		s->off = off + n;
	}
	exec_arguments(s, e, BPF_CORE_READ(p, mm));

	f = BPF_CORE_READ(bprm, file);
	i = BPF_CORE_READ(f, f_inode);
	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	find_origin(f, &from);
	e->magic = from.magic;
	e->doubt = from.doubt;
	e->ino = BPF_CORE_READ(i, i_ino);
	e->size = BPF_CORE_READ(i, i_size);
	e->mode = BPF_CORE_READ(i, i_mode);
	e->nlink = BPF_CORE_READ(i, i_nlink);
	e->uid = BPF_CORE_READ(i, i_uid.val);
	e->gid = BPF_CORE_READ(i, i_gid.val);
	e->mtime = modified(i);
	e->ctime = changed(i);
	d = BPF_CORE_READ(f, f_path.dentry);
	e->path_len = walk(s, BPF_CORE_READ(f, f_path.mnt), d);
	e->outer_len = e->path_len - s->inner;
	place = s->place;
	if (BPF_CORE_READ(d, d_parent) == d)
		s->flags |= FL_MEMORY; /* a regular file that no directory ever held */
	else
		note_deleted(s, d, i);
	if (compat(p)) /* set or cleared by the image */
		s->flags |= FL_COMPAT;
	gained = bpf_map_lookup_elem(&gains, &key);
	if (gained) {
		e->gained = *gained;
		bpf_map_delete_elem(&gains, &key);
		if (e->gained & GAINED_COMPAT)
			s->flags |= FL_COMPAT;
	}

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

	s->place = place;
	e->place_len = walk_place(s);
	e->args_total ^= e->args_len;
	pack_task(&e->t, &e->h);
	send(s, e, RING_CRIT);
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
	if (*(__u64 *)e.before == *(__u64 *)e.after && *(__u64 *)(e.before + 8) == *(__u64 *)(e.after + 8))
		return 0;
	emit(&e, wanted(OPT_COMM) ? 0 : FL_NOTE, RING_CRIT);
	return 0;
}

static __noinline int tell_new_namespaces(struct task_struct *parent, struct task_struct *child)
{
	struct event_namespace e = {};

	head(&e.h, EV_NAMESPACE, child);
	e.h.tgid = e.h.tid = BPF_CORE_READ(child, tgid);
	e.h.arg = fill_namespaces(&e, BPF_CORE_READ(parent, nsproxy), BPF_CORE_READ(child, nsproxy));
	e.user = BPF_CORE_READ(child, cred, user_ns, ns.inum);
	if (BPF_CORE_READ(parent, cred, user_ns) != BPF_CORE_READ(child, cred, user_ns))
		e.h.arg |= CLONE_NEWUSER;
	e.call = NR_clone;
	if (e.h.arg)
		emit(&e, 0, RING_CRIT);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct event_fork e = {};

	if (field(child, pid) != field(child, tgid))
		return 0; /* a thread */
	if (marks(parent, child))
		return 0;
	head_of(&e.h, EV_FORK, parent);
	fill_task(&e.t, child);
	pack_task(&e.t, &e.h);
	emit(&e, 0, RING_CRIT);
	if (field(parent, nsproxy) != field(child, nsproxy) || user_namespace_of(parent) != user_namespace_of(child))
		tell_new_namespaces(parent, child);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *p)
{
	struct event_exit e = {};
	struct signal_struct *sig = BPF_CORE_READ(p, signal);

	forget_act();
	if (BPF_CORE_READ(sig, live.counter) != 0)
		return 0; /* other threads go on */
	if (unmark(p) || own(EV_EXIT))
		return 0;
	head_of(&e.h, EV_EXIT, p);
	/* Two last threads may both find that none is left, the second when the
	 * first has been reaped already. */
	{
		struct exit_key key = { .start = e.h.start, .tgid = e.h.tgid };
		__u8 one = 1;

		if (BPF_CORE_READ(sig, nr_threads) > 1) {
			if (insert(&gone, &key, &one) == -EEXIST)
				return 0;
		} else if (bpf_map_lookup_elem(&gone, &key)) {
			return 0;
		}
	}
	e.peak = BPF_CORE_READ(sig, maxrss);
	if (BPF_CORE_READ(sig, flags) & SIGNAL_GROUP_EXIT)
		e.h.arg = BPF_CORE_READ(sig, group_exit_code);
	else
		e.h.arg = BPF_CORE_READ(p, group_leader, exit_code);
	emit(&e, 0, RING_CRIT);
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
	note_init(t, BPF_CORE_READ(t, mm, exe_file, f_path.dentry));
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}
