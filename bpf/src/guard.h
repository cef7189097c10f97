/* SPDX-License-Identifier: GPL-2.0 */
/* Acts against the agent: refused while the configuration says so, and told in
 * any case. These programs run behind those that observe, so that what is refused
 * here has been told there. Constants are returned in places of their
 * own: a verifier must see that no other value can come. */
#pragma once

#include "control.h"
#include "init.h"
#include "trace.h"

#define EPERM 1
#define SIGCONT 18
#define SIGTERM 15
#define SIGURG 23
#define SIGIO 29
#define SYSCTL_NAME_BYTES 128
#define SYSCTL_VALUE_BYTES 512

/* The agent's own objects. */
struct owned_key {
	__u32 kind; /* enum owned */
	__u32 id;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct owned_key);
	__type(value, __u8);
} objects SEC(".maps");

/* against says whether current acts upon the agent from outside. */
static __always_inline bool against(struct task_struct *target)
{
	struct config *c = configuration();

	return c && BPF_CORE_READ(target, tgid) == c->self && bpf_get_current_pid_tgid() >> 32 != c->self;
}

/* against_canary is the same for the child that acts for the agent. */
static __always_inline bool against_canary(struct task_struct *target)
{
	struct config *c = configuration();
	struct course *r = under_way();
	__u32 by = bpf_get_current_pid_tgid() >> 32;

	return c && r && r->canary && BPF_CORE_READ(target, tgid) == r->canary && by != r->canary && by != c->self;
}

struct attempt_key {
	__u64 id;
	__u32 tgid, kind, what, refused;
};

struct attempt {
	__u64 told; /* when */
	__u64 since; /* how many were not, since then */
};

/* What was done against the agent, by whom: told once in a second, so that nobody
 * fills the critical ring with it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct attempt_key);
	__type(value, struct attempt);
} attempts SEC(".maps");

static __always_inline void tell_tamper(__u32 kind, __u32 what, __u64 id, __u64 request, bool refused)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct event_tamper e = { .kind = kind, .what = what, .id = id, .request = request };
	struct attempt_key k = { .id = id, .kind = kind, .what = what, .refused = refused };
	struct attempt *a, fresh = {};

	k.tgid = BPF_CORE_READ(t, tgid);
	fresh.told = bpf_ktime_get_boot_ns();
	a = bpf_map_lookup_elem(&attempts, &k);
	if (a && fresh.told - a->told < SECOND) {
		__sync_fetch_and_add(&a->since, 1);
		count_folded(EV_TAMPER);
		return;
	}
	if (a)
		e.before = a->since;
	bpf_map_update_elem(&attempts, &k, &fresh, BPF_ANY);
	head_without_helper(&e.h, EV_TAMPER, t);
	emit(&e, refused ? FL_REFUSED : 0, RING_CRIT);
}

SEC("lsm/task_kill")
int BPF_PROG(guard_task_kill, struct task_struct *target, struct kernel_siginfo *info, int sig, const struct cred *cred, int ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	if (ret || sig == 0 || sig == SIGCONT || !against(target))
		return 0;
	/* Who may is told all the same: it is how a guest is made quiet. */
	if (!protecting() || (BPF_CORE_READ(t, tgid) == 1 && (sig == SIGTERM || goes_down(t)))) {
		tell_tamper(TAMPER_SIGNAL, sig, 0, 0, false);
		return 0;
	}
	tell_tamper(TAMPER_SIGNAL, sig, 0, 0, true);
	return -EPERM;
}

/* Whoever makes the agent the owner of a file may have any signal sent when
 * something happens with that file, which asks no other hook. It may come out
 * of an interrupt: current is whoever was there, the agent itself as well. */
SEC("lsm/file_send_sigiotask")
int BPF_PROG(guard_sigio, struct task_struct *target, void *owner, int sig, int ret)
{
	struct config *c = configuration();

	if (ret || sig == 0 || sig == SIGIO || sig == SIGURG || sig == SIGCONT || !c || BPF_CORE_READ(target, tgid) != c->self)
		return 0;
	tell_tamper(TAMPER_SIGNAL, sig, 0, 0, protecting());
	return protecting() ? -EPERM : 0;
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(guard_ptrace, struct task_struct *target, unsigned int mode, int ret)
{
	struct called x;

	if (ret || !(mode & PTRACE_MODE_ATTACH) || !(against(target) || against_canary(target)))
		return 0;
	called(&x);
	if (!protecting()) {
		tell_tamper(TAMPER_TRACE, x.number, 0, x.a, false);
		return 0;
	}
	tell_tamper(TAMPER_TRACE, x.number, 0, x.a, true);
	return -EPERM;
}

/* A limit of processor time kills, others starve. */
SEC("lsm/task_setrlimit")
int BPF_PROG(guard_setrlimit, struct task_struct *target, unsigned int resource, void *limit, int ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	if (ret || !against(target) || BPF_CORE_READ(t, tgid) == 1)
		return 0;
	if (!protecting()) {
		tell_tamper(TAMPER_LIMIT, resource, 0, 0, false);
		return 0;
	}
	tell_tamper(TAMPER_LIMIT, resource, 0, 0, true);
	return -EPERM;
}

/* starves says whether current takes processor time, disk time or memory from
 * the agent. Init does so by the agent's unit. */
static __always_inline bool starves(struct task_struct *target)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	return against(target) && BPF_CORE_READ(t, tgid) != 1;
}

SEC("lsm/task_setscheduler")
int BPF_PROG(guard_setscheduler, struct task_struct *target, int ret)
{
	if (ret || !starves(target))
		return 0;
	if (!protecting()) {
		tell_tamper(TAMPER_SCHEDULER, STARVE_SCHEDULER, 0, 0, false);
		return 0;
	}
	tell_tamper(TAMPER_SCHEDULER, STARVE_SCHEDULER, 0, 0, true);
	return -EPERM;
}

SEC("lsm/task_setnice")
int BPF_PROG(guard_setnice, struct task_struct *target, int nice, int ret)
{
	if (ret || !starves(target))
		return 0;
	if (!protecting()) {
		tell_tamper(TAMPER_SCHEDULER, STARVE_NICE, 0, 0, false);
		return 0;
	}
	tell_tamper(TAMPER_SCHEDULER, STARVE_NICE, 0, 0, true);
	return -EPERM;
}

SEC("lsm/task_setioprio")
int BPF_PROG(guard_setioprio, struct task_struct *target, int priority, int ret)
{
	if (ret || !starves(target))
		return 0;
	if (!protecting()) {
		tell_tamper(TAMPER_SCHEDULER, STARVE_IO, 0, 0, false);
		return 0;
	}
	tell_tamper(TAMPER_SCHEDULER, STARVE_IO, 0, 0, true);
	return -EPERM;
}

SEC("lsm/task_movememory")
int BPF_PROG(guard_movememory, struct task_struct *target, int ret)
{
	if (ret || !starves(target))
		return 0;
	if (!protecting()) {
		tell_tamper(TAMPER_SCHEDULER, STARVE_MEMORY, 0, 0, false);
		return 0;
	}
	tell_tamper(TAMPER_SCHEDULER, STARVE_MEMORY, 0, 0, true);
	return -EPERM;
}

static __always_inline bool is_owned(__u32 kind, __u32 id)
{
	struct owned_key key = { .kind = kind, .id = id };

	return bpf_map_lookup_elem(&objects, &key);
}

/* reaches says whether a command of bpf(2) takes hold of something of ours. */
static __always_inline bool reaches(int cmd, union bpf_attr *attr, __u32 *id)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct bpf_link *l;
	struct file *f;

	*id = attribute(attr, 0, false);
	switch (cmd) {
	case BPF_PROG_GET_FD_BY_ID:
		return is_owned(OWNED_PROGRAM, *id);
	case BPF_MAP_GET_FD_BY_ID:
		return is_owned(OWNED_MAP, *id);
	case BPF_LINK_GET_FD_BY_ID:
		return is_owned(OWNED_LINK, *id);
	case BPF_PROG_LOAD:
		/* One that changes what functions return could answer in the
		 * place of these guards. */
		*id = attribute(attr, __builtin_offsetof(union bpf_attr, expected_attach_type), false);
		return *id == BPF_MODIFY_RETURN;
	case BPF_PROG_ATTACH:
	case BPF_LINK_CREATE:
		/* A later program on the hook of parameters changes what is
		 * written behind the one that guards. */
		*id = attribute(attr, __builtin_offsetof(union bpf_attr, attach_type), false);
		return *id == BPF_CGROUP_SYSCTL;
	case BPF_LINK_DETACH:
	case BPF_LINK_UPDATE:
		f = file_of(t, *id);
		l = f ? BPF_CORE_READ(f, private_data) : 0;
		*id = l ? BPF_CORE_READ(l, id) : 0;
		return l && is_owned(OWNED_LINK, *id);
	}
	return false;
}

/* is_program says whether a descriptor is one of a program. Whatever else lies
 * where a file keeps its own does not point back at itself. */
static __always_inline bool is_program(int fd)
{
	struct file *f = file_of((struct task_struct *)bpf_get_current_task(), fd);
	struct bpf_prog *p = f ? BPF_CORE_READ(f, private_data) : 0;

	return p && BPF_CORE_READ(p, aux, prog) == p;
}

/* in_vain says whether the kernel refuses a command in any case: somebody who has
 * no right to it, or nothing to do it with, is no danger, and must not be able to
 * make a false alarm. */
static __always_inline bool in_vain(int cmd, union bpf_attr *attr)
{
	switch (cmd) {
	case BPF_PROG_GET_FD_BY_ID:
	case BPF_MAP_GET_FD_BY_ID:
	case BPF_LINK_GET_FD_BY_ID:
		return !may_control(true);
	case BPF_PROG_LOAD:
		return !may_control(false); /* rights may be lent to a user namespace */
	case BPF_PROG_ATTACH:
		return !is_program(attribute(attr, __builtin_offsetof(union bpf_attr, attach_bpf_fd), false));
	case BPF_LINK_CREATE:
		return !is_program(attribute(attr, __builtin_offsetof(union bpf_attr, link_create.prog_fd), false));
	}
	return false;
}

SEC("lsm/bpf")
int BPF_PROG(guard_bpf, int cmd, union bpf_attr *attr, unsigned int size)
{
	struct config *c = configuration();
	__u32 id;

	if (!c || bpf_get_current_pid_tgid() >> 32 == c->self || !reaches(cmd, attr, &id) || in_vain(cmd, attr))
		return 0;
	if (!protecting()) {
		tell_tamper(TAMPER_BPF, cmd, id, 0, false);
		return 0;
	}
	tell_tamper(TAMPER_BPF, cmd, id, 0, true);
	return -EPERM;
}

/* traces says whether the parameter is the one that, at 0, silences every hook
 * which is made by tracing of functions. */
static __always_inline bool traces(struct bpf_sysctl *ctx)
{
	const char want[] = "kernel/ftrace_enabled";
	char name[32] = {};

	if (bpf_sysctl_get_name(ctx, name, sizeof(name), 0) < 0)
		return false; /* longer */
#pragma unroll
	for (__u32 i = 0; i < sizeof(want); i++)
		if (name[i] != want[i])
			return false;
	return true;
}

/* proven_on says whether a value of n bytes is a number other than 0, whatever
 * blanks stand before it. What cannot be read is not proven. */
static __always_inline bool proven_on(const char *value, long n)
{
	long v = 0;

	/* Behind the value there are zeroes. */
	return n > 0 && bpf_strtol(value, SYSCTL_VALUE_BYTES, 0, &v) > 0 && v != 0;
}

/* Every write of a parameter below /proc/sys. Not made by tracing of functions:
 * it works when nothing else does. */
SEC("cgroup/sysctl")
int on_sysctl(struct bpf_sysctl *ctx)
{
	struct event_kernel *e;
	struct scratch *s;
	char *name;
	long v;
	bool guarded, refuse;

	if (!ctx->write || own_by(BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), tgid), EV_PARAM))
		return 1;
	guarded = traces(ctx) && protecting();
	s = take(EV_PARAM, RING_CRIT);
	if (!s) {
		if (guarded) /* its value cannot be looked at */
			return 0;
		return 1;
	}
	e = (struct event_kernel *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	head_without_helper(&e->h, EV_PARAM, (struct task_struct *)bpf_get_current_task());
	/* Each string in a place of its own, with all its bytes. */
	name = s->data + sizeof(*e);
	__builtin_memset(name, 0, SYSCTL_NAME_BYTES);
	bpf_sysctl_get_name(ctx, name, SYSCTL_NAME_BYTES, 0);
	e->name_len = SYSCTL_NAME_BYTES;
	v = bpf_sysctl_get_new_value(ctx, name + SYSCTL_NAME_BYTES, SYSCTL_VALUE_BYTES);
	e->size = v > 0 ? v : 0;
	e->value_len = SYSCTL_VALUE_BYTES;
	refuse = guarded && !proven_on(name + SYSCTL_NAME_BYTES, v);
	bpf_sysctl_get_current_value(ctx, name + SYSCTL_NAME_BYTES + SYSCTL_VALUE_BYTES, SYSCTL_VALUE_BYTES);
	e->before_len = SYSCTL_VALUE_BYTES;
	s->off = sizeof(*e) + SYSCTL_NAME_BYTES + 2 * SYSCTL_VALUE_BYTES;
	if (refuse)
		s->flags |= FL_REFUSED;
	send(s, e, RING_CRIT);
	give(s);
	if (refuse) {
		tell_tamper(TAMPER_FTRACE, 0, 0, 0, true);
		return 0;
	}
	return 1;
}

/* How often a map of the agent's is held: each descriptor that was made of it
 * counts, wherever it is now (in a table, in a mapping, on its way in a message,
 * in bpffs), and so does each program that uses it. */
SEC("iter/bpf_map")
int list_holders(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *m = ctx->map;
	struct held h = {};

	if (!m)
		return 0;
	h.id = BPF_CORE_READ(m, id);
	h.count = BPF_CORE_READ(m, usercnt.counter);
	h.uses = BPF_CORE_READ(m, refcnt.counter);
	if (is_owned(OWNED_MAP, h.id))
		bpf_seq_write(ctx->meta->seq, &h, sizeof(h));
	return 0;
}
