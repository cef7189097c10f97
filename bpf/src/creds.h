/* SPDX-License-Identifier: GPL-2.0 */
/* What a process may do: its credentials, its root, its namespaces; and the
 * signals it sends. */
#pragma once

#include "process.h"
#include "syscall.h"

#define NR_setuid 105
#define NR_capset 126
#define NR_setgroups 116
#define NR_chroot 161

static __always_inline void new_capabilities(struct event_creds *e, const struct cred *c)
{
	e->new_permitted = capabilities(&c->cap_permitted);
	e->new_inheritable = capabilities(&c->cap_inheritable);
}

static __always_inline bool same_creds(const struct event_creds *e)
{
	return e->uid == e->t.uid && e->gid == e->t.gid && e->euid == e->t.euid && e->egid == e->t.egid &&
	       e->suid == e->t.suid && e->sgid == e->t.sgid && e->fsuid == e->t.fsuid && e->fsgid == e->t.fsgid &&
	       e->cap_effective == e->t.cap_effective && e->cap_permitted == e->new_permitted &&
	       e->cap_inheritable == e->new_inheritable && !e->groups;
}

/* A user namespace that begins or is entered, with the namespaces as they are. */
static __noinline int tell_user_namespace(struct task_struct *t, const struct cred *new)
{
	struct event_namespace e = {};
	struct nsproxy *ns = BPF_CORE_READ(t, nsproxy);

	head(&e.h, EV_NAMESPACE, t);
	fill_namespaces(&e, 0, ns);
	e.user = BPF_CORE_READ(new, user_ns, ns.inum);
	e.h.euid = BPF_CORE_READ(new, euid.val);
	e.h.arg = CLONE_NEWUSER;
	e.call = call_number();
	emit(&e, compat_flag(t), RING_CRIT);
	return 0;
}

/* Every change of credentials comes by here. That of exec tells itself. */
SEC("fentry/commit_creds")
int BPF_PROG(on_commit_creds, struct cred *new)
{
	struct task_struct *t = current_task();
	const struct cred *old = BPF_CORE_READ(t, cred);
	struct event_creds e = {};

	if (BPF_CORE_READ(t, flags) & PF_KTHREAD || BPF_CORE_READ_BITFIELD_PROBED(t, in_execve))
		return 0;
	if (own(EV_CREDS))
		return 0;
	fill_task(&e.t, t);
	e.uid = e.t.uid;
	e.gid = e.t.gid;
	e.euid = e.t.euid;
	e.egid = e.t.egid;
	e.suid = e.t.suid;
	e.sgid = e.t.sgid;
	e.fsuid = e.t.fsuid;
	e.fsgid = e.t.fsgid;
	e.cap_effective = e.t.cap_effective;
	e.cap_permitted = capabilities(&old->cap_permitted);
	e.cap_inheritable = capabilities(&old->cap_inheritable);
	fill_ids(&e.t, new);
	new_capabilities(&e, new);
	e.groups = BPF_CORE_READ(old, group_info) != BPF_CORE_READ(new, group_info);
	e.known = 1;
	if (!same_creds(&e)) {
		head(&e.h, EV_CREDS, t);
		e.h.euid = e.t.euid;
		e.h.arg = call_number();
		emit(&e, compat_flag(t), RING_CRIT);
	}
	if (BPF_CORE_READ(old, user_ns) != BPF_CORE_READ(new, user_ns))
		tell_user_namespace(t, new);
	return 0;
}

static __always_inline void tell_creds(struct task_struct *t, __u32 call)
{
	const struct cred *now = BPF_CORE_READ(t, cred);
	struct event_creds e = {};

	head(&e.h, EV_CREDS, t);
	fill_task(&e.t, t);
	new_capabilities(&e, now);
	e.groups = call == NR_setgroups;
	e.h.arg = call;
	emit(&e, 0, RING_CRIT);
}

/* The end of a call that sets ids, groups or capabilities. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_set_creds, struct pt_regs *regs, long ret)
{
	struct task_struct *t = current_task();

	/* setfsuid and setfsgid return the old id, whatever it is. */
	if ((int)ret < 0 && (int)ret >= -4095)
		return 0;
	if (!own(EV_CREDS))
		tell_creds(t, BPF_CORE_READ(regs, orig_ax));
	return 0;
}

SEC("fentry/switch_task_namespaces")
int BPF_PROG(on_switch_namespaces, struct task_struct *t, struct nsproxy *new)
{
	struct event_namespace e = {};

	if (!new) /* it ends */
		return 0;
	if (own(EV_NAMESPACE))
		return 0;
	head(&e.h, EV_NAMESPACE, t);
	e.h.arg = fill_namespaces(&e, BPF_CORE_READ(t, nsproxy), new);
	if (!e.h.arg)
		return 0;
	e.h.mntns = e.mnt;
	e.user = BPF_CORE_READ(t, cred, user_ns, ns.inum);
	e.call = call_number();
	emit(&e, compat_flag(t), RING_CRIT);
	return 0;
}

/* What setns was asked for where it was left to the descriptor. */
static __always_inline __u32 entered(struct event_namespace *e, struct task_struct *t, int fd)
{
	struct file *f = file_of(t, fd);
	__u64 number = f ? BPF_CORE_READ(f, f_inode, i_ino) : 0;

	if (!number)
		return 0;
	return (number == e->mnt ? CLONE_NEWNS : 0) | (number == e->pid ? CLONE_NEWPID : 0) |
	       (number == e->net ? CLONE_NEWNET : 0) | (number == e->uts ? CLONE_NEWUTS : 0) |
	       (number == e->ipc ? CLONE_NEWIPC : 0) | (number == e->cgroup ? CLONE_NEWCGROUP : 0) |
	       (number == e->time ? CLONE_NEWTIME : 0) | (number == e->user ? CLONE_NEWUSER : 0);
}

#define ALL_NAMESPACES                                                                                     \
	(CLONE_NEWTIME | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |      \
	 CLONE_NEWPID | CLONE_NEWNET)

SEC("tp_btf/sys_exit")
int BPF_PROG(on_set_namespaces, struct pt_regs *regs, long ret)
{
	struct task_struct *t = current_task();
	struct event_namespace e = {};

	if (failed(ret) || own(EV_NAMESPACE))
		return 0;
	head(&e.h, EV_NAMESPACE, t);
	fill_namespaces(&e, 0, BPF_CORE_READ(t, nsproxy));
	e.user = BPF_CORE_READ(t, cred, user_ns, ns.inum);
	e.call = BPF_CORE_READ(regs, orig_ax);
	if (e.call == NR_unshare) {
		e.h.arg = BPF_CORE_READ(regs, di) & ALL_NAMESPACES;
	} else {
		e.h.arg = BPF_CORE_READ(regs, si) & ALL_NAMESPACES;
		if (!e.h.arg)
			e.h.arg = entered(&e, t, BPF_CORE_READ(regs, di));
	}
	if (!e.h.arg)
		return 0; /* unshare of files or the like */
	emit(&e, 0, RING_CRIT);
	if (e.h.arg & CLONE_NEWUSER)
		tell_creds(t, e.call);
	return 0;
}

static __always_inline void tell_root(struct vfsmount *mnt, struct dentry *d)
{
	struct scratch *s;
	struct event_file *e;

	if (own(EV_CHROOT))
		return;
	s = take(EV_CHROOT, RING_CRIT);
	if (!s)
		return;
	e = begin_file(s, EV_CHROOT);
	fill_inode(e, BPF_CORE_READ(d, d_inode));
	e->path_len = walk(s, mnt, d);
	e->outer_len = e->path_len - s->inner;
	e->place_len = walk_place(s);
	send(s, e, RING_CRIT);
	give(s);
}

/* Nothing can refuse it after this hook but other security modules. */
SEC("lsm/path_chroot")
int BPF_PROG(on_path_chroot, struct path *path)
{
	tell_root(path->mnt, path->dentry);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_chrooted, struct pt_regs *regs, long ret)
{
	struct task_struct *t = current_task();

	if (!failed(ret))
		tell_root(BPF_CORE_READ(t, fs, root.mnt), BPF_CORE_READ(t, fs, root.dentry));
	return 0;
}

static __always_inline void fill_target(struct event_target *e, struct task_struct *t)
{
	e->start = BPF_CORE_READ(t, group_leader, start_boottime);
	e->tgid = BPF_CORE_READ(t, tgid);
	e->tid = BPF_CORE_READ(t, pid);
	bpf_core_read(&e->comm, sizeof(e->comm), &t->comm);
}

static __always_inline void tell_signal(struct task_struct *target, int sig)
{
	struct task_struct *t = current_task();
	struct event_target e = {};

	/* 0 only asks. Within a process they are its own affair, and some
	 * run-time systems live on them. */
	if (!sig || BPF_CORE_READ(target, tgid) == bpf_get_current_pid_tgid() >> 32 || own(EV_SIGNAL))
		return;
	head(&e.h, EV_SIGNAL, t);
	fill_target(&e, target);
	e.how = sig;
	emit(&e, 0, RING_CRIT);
}

/* A given cred means that the kernel sends for somebody who is not current. */
SEC("lsm/task_kill")
int BPF_PROG(on_signal_asked, struct task_struct *target, struct kernel_siginfo *info, int sig, const struct cred *cred)
{
	__u64 on_behalf = 1;

	/* Newer verifiers take every argument of a security hook for a pointer that
	 * is not null, and drop a test of it: it is read as a number. */
	bpf_probe_read_kernel(&on_behalf, sizeof(on_behalf), ctx + 3);
	if (!on_behalf)
		tell_signal(target, sig);
	return 0;
}

#define SI_USER 0
#define SI_QUEUE -1
#define SI_TKILL -6

/* The kernel's own signals have codes above zero, or no information at all;
 * those of timers and the like come in any context. */
SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal_sent, int sig, struct kernel_siginfo *info, struct task_struct *target, int group, int result)
{
	int code;

	if ((unsigned long)info <= 1)
		return 0;
	code = BPF_CORE_READ(info, si_code);
	if (code == SI_USER || code == SI_QUEUE || code == SI_TKILL)
		tell_signal(target, sig);
	return 0;
}
