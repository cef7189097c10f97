/* SPDX-License-Identifier: GPL-2.0 */
/* Acts upon the kernel: code that goes into it, programs and events that watch
 * it, its parameters. */
#pragma once

#include "calls.h"
#include "kernel_control.h"
#include "memory.h"
#include "syscall.h"

#define NR_setsockopt 54
#define NR_init_module 175
#define NR_kexec_load 246
#define NR_perf_event_open 298
#define NR_finit_module 313
#define NR_kexec_file_load 320
#define NR_bpf 321

#define SOL_SOCKET 1
#define SO_ATTACH_FILTER 26
#define SO_ATTACH_BPF 50
#define SO_ATTACH_REUSEPORT_CBPF 51
#define SO_ATTACH_REUSEPORT_EBPF 52

struct read_file {
	__u64 ino;
	__u32 dev;
	__u32 pad;
};

/* The module file that a thread had the kernel read last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct read_file);
} reading SEC(".maps");

static __always_inline struct event_kernel *begin_kernel(struct scratch *s, __u32 type)
{
	struct event_kernel *e = (struct event_kernel *)s->data;

	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	head(&e->h, type, (struct task_struct *)bpf_get_current_task());
	return e;
}

/* append_string appends a string of the kernel and returns its length. */
static __always_inline __u32 append_string(struct scratch *s, const void *from)
{
	__u32 was = s->off;

	append_name(s, from);
	return s->off - was;
}

static __always_inline void append_file(struct scratch *s, struct event_kernel *e, struct file *f)
{
	struct inode *i = BPF_CORE_READ(f, f_inode);

	e->dev = BPF_CORE_READ(i, i_sb, s_dev);
	e->ino = BPF_CORE_READ(i, i_ino);
	e->path_len = walk(s, BPF_CORE_READ(f, f_path.mnt), BPF_CORE_READ(f, f_path.dentry));
	e->outer_len = e->path_len - s->inner;
	note_deleted(s, BPF_CORE_READ(f, f_path.dentry), i);
}

/* What a simple act tells. */
struct kernel_act {
	__u32 type, operation;
	__u64 kind, id, size, flags;
};

static __always_inline void tell_act(struct kernel_act *a, __u32 flags, __u32 result)
{
	struct event_kernel e = {};

	if (left_out(a->type))
		return;
	head(&e.h, a->type, (struct task_struct *)bpf_get_current_task());
	e.h.arg = result;
	e.operation = a->operation;
	e.kind = a->kind;
	e.id = a->id;
	e.size = a->size;
	e.flags = a->flags;
	emit(&e, flags, RING_CRIT);
}

static __always_inline __u32 module_size(struct module *m)
{
	struct module___until_6_4 *old = (void *)m;
	__u32 sum = 0;

	if (!bpf_core_field_exists(m->mem))
		return BPF_CORE_READ(old, core_layout.size) + BPF_CORE_READ(old, init_layout.size);
#pragma unroll
	for (int i = 0; i < 7; i++)
		sum += BPF_CORE_READ(m, mem[i].size);
	return sum;
}

/* append_module names the file that the module comes from. The descriptor still
 * is in the registers; where the kernel has told what it read, the descriptor
 * must be that file still, since another thread can change it. */
static __always_inline void append_module(struct scratch *s, struct event_kernel *e, struct called *x)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	__u32 tid = bpf_get_current_pid_tgid();
	struct read_file *r = bpf_map_lookup_elem(&reading, &tid);
	struct file *f = file_of(t, x->a);

	if (f && r && (BPF_CORE_READ(f, f_inode, i_ino) != r->ino || BPF_CORE_READ(f, f_inode, i_sb, s_dev) != r->dev))
		f = 0;
	if (f)
		append_file(s, e, f);
	if (r) {
		e->ino = r->ino;
		e->dev = r->dev;
	}
}

static __always_inline void tell_module(__u32 type, struct module *m, __u64 size, __u32 flags, __u32 result)
{
	struct event_kernel *e;
	struct scratch *s;
	struct called x;

	if (left_out(type))
		return;
	s = take(type, RING_CRIT);
	if (!s)
		return;
	e = begin_kernel(s, type);
	e->h.arg = result;
	e->size = size;
	called(&x);
	if (m) {
		e->kind = BPF_CORE_READ(m, taints);
		if (type == EV_MODULE_LOAD && bpf_core_field_exists(m->sig_ok))
			e->signature = BPF_CORE_READ(m, sig_ok) ? SIGNATURE_VALID : SIGNATURE_NONE;
		e->name_len = append_string(s, &m->name);
	}
	if (type == EV_MODULE_LOAD) {
		e->operation = x.number == NR_finit_module ? 2 : 1;
		if (e->operation == 2) {
			e->flags = x.c & 0xffffffff;
			append_module(s, e, &x);
		}
	}
	s->flags |= flags;
	send(s, e, RING_CRIT);
	give(s);
}

/* Before the module's own code runs. */
SEC("tp_btf/module_load")
int BPF_PROG(on_module_load, struct module *m)
{
	tell_module(EV_MODULE_LOAD, m, module_size(m), 0, 0);
	return 0;
}

SEC("tp_btf/module_free")
int BPF_PROG(on_module_free, struct module *m)
{
	tell_module(EV_MODULE_UNLOAD, m, module_size(m), FL_RESULT, 0);
	return 0;
}

SEC("fexit/load_module")
int BPF_PROG(on_module_failed, struct load_info *info, const char *arguments, int flags, int ret)
{
	if (ret < 0)
		tell_module(EV_MODULE_LOAD, 0, 0, FL_RESULT, -ret);
	return 0;
}

static __always_inline void tell_kexec(__u32 operation, struct file *f)
{
	struct event_kernel *e;
	struct scratch *s;

	if (left_out(EV_KEXEC))
		return;
	s = take(EV_KEXEC, RING_CRIT);
	if (!s)
		return;
	e = begin_kernel(s, EV_KEXEC);
	e->operation = operation;
	if (f) {
		e->size = BPF_CORE_READ(f, f_inode, i_size);
		append_file(s, e, f);
	}
	send(s, e, RING_CRIT);
	give(s);
}

SEC("lsm/kernel_read_file")
int BPF_PROG(on_kernel_read_file, struct file *f, int id, bool whole, int ret)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct read_file r = {};

	if (ret || !f)
		return 0;
	if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_MODULE)) {
		r.ino = BPF_CORE_READ(f, f_inode, i_ino);
		r.dev = BPF_CORE_READ(f, f_inode, i_sb, s_dev);
		bpf_map_update_elem(&reading, &tid, &r, BPF_ANY);
	} else if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_IMAGE)) {
		tell_kexec(2, f);
	} else if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_INITRAMFS)) {
		tell_kexec(3, f);
	}
	return 0;
}

SEC("lsm/kernel_load_data")
int BPF_PROG(on_kernel_load_data, int id, bool whole, int ret)
{
	if (!ret && id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_IMAGE))
		tell_kexec(1, 0);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_kexec, struct pt_regs *regs, long ret)
{
	struct kernel_act a = { .type = EV_KEXEC, .operation = 1 };

	if (BPF_CORE_READ(regs, orig_ax) == NR_kexec_file_load)
		a.operation = 2;
	tell_act(&a, FL_RESULT, failed(ret) ? -ret : 0);
	return 0;
}

/* What is asked of bpf(2), as far as it changes something or reaches for what
 * others have loaded. The attributes are the same for all kernels. */
struct bpf_asked {
	__u32 kind, size, flags, id;
	__u64 name; /* address of a string in user memory */
	char text[16];
};

static __always_inline __u32 attribute(void *attr, __u32 offset, bool user)
{
	__u32 v = 0;

	if (user)
		bpf_probe_read_user(&v, sizeof(v), attr + offset);
	else
		bpf_probe_read_kernel(&v, sizeof(v), attr + offset);
	return v;
}

#define FIELD(name) attribute(attr, __builtin_offsetof(union bpf_attr, name), user)

static __always_inline void text(char *to, void *attr, __u32 offset, bool user)
{
	if (user)
		bpf_probe_read_user(to, 16, attr + offset);
	else
		bpf_probe_read_kernel(to, 16, attr + offset);
	to[15] = 0;
}

static __always_inline __u32 prog_id(int fd)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct file *f = file_of(t, fd);
	struct bpf_prog *p = f ? BPF_CORE_READ(f, private_data) : 0;

	return p ? BPF_CORE_READ(p, aux, id) : 0;
}

static __always_inline bool ask(int cmd, void *attr, bool user, struct bpf_asked *q)
{
	switch (cmd) {
	case BPF_PROG_LOAD:
		q->kind = FIELD(prog_type);
		q->size = FIELD(insn_cnt);
		q->flags = FIELD(prog_flags);
		text(q->text, attr, __builtin_offsetof(union bpf_attr, prog_name), user);
		return true;
	case BPF_MAP_CREATE:
		q->kind = FIELD(map_type);
		q->size = FIELD(max_entries);
		q->flags = FIELD(map_flags);
		text(q->text, attr, __builtin_offsetof(union bpf_attr, map_name), user);
		return true;
	case BPF_LINK_CREATE:
		q->kind = FIELD(link_create.attach_type);
		q->flags = FIELD(link_create.flags);
		q->id = prog_id(FIELD(link_create.prog_fd));
		return true;
	case BPF_PROG_ATTACH:
	case BPF_PROG_DETACH:
		q->kind = FIELD(attach_type);
		q->flags = FIELD(attach_flags);
		q->id = prog_id(FIELD(attach_bpf_fd));
		return true;
	case BPF_RAW_TRACEPOINT_OPEN:
		q->id = prog_id(FIELD(raw_tracepoint.prog_fd));
		q->name = (__u64)FIELD(raw_tracepoint.name) |
			  (__u64)attribute(attr, __builtin_offsetof(union bpf_attr, raw_tracepoint.name) + 4, user) << 32;
		return true;
	case BPF_OBJ_PIN:
	case BPF_OBJ_GET:
		q->flags = FIELD(file_flags);
		q->name = (__u64)FIELD(pathname) | (__u64)attribute(attr, __builtin_offsetof(union bpf_attr, pathname) + 4, user) << 32;
		return true;
	case BPF_PROG_GET_FD_BY_ID:
	case BPF_MAP_GET_FD_BY_ID:
	case BPF_LINK_GET_FD_BY_ID:
		q->id = FIELD(prog_id);
		return true;
	case BPF_LINK_UPDATE:
	case BPF_LINK_DETACH:
	case BPF_ENABLE_STATS:
	case BPF_ITER_CREATE:
	case BPF_PROG_BIND_MAP:
	case 36: /* TOKEN_CREATE */
		return true;
	}
	return false;
}

#define CAP_SYS_ADMIN_BIT BIT(21)
#define CAP_BPF_BIT BIT(39)

/* may_control says whether current has the right to act upon programs and maps
 * of the kernel: in the initial user namespace for what asks for it there. */
static __always_inline bool may_control(bool initial)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(t, cred);

	if (initial && BPF_CORE_READ(cred, user_ns, level))
		return false;
	return capabilities(&cred->cap_effective) & (CAP_SYS_ADMIN_BIT | CAP_BPF_BIT);
}

static __always_inline bool by_number(int cmd)
{
	return cmd == BPF_PROG_GET_FD_BY_ID || cmd == BPF_MAP_GET_FD_BY_ID || cmd == BPF_LINK_GET_FD_BY_ID;
}

/* repeated says whether current tries what it has no right to once more: one
 * such attempt tells as much as a million. */
static __always_inline bool repeated(int cmd, __u32 flags, __u32 result)
{
	struct sum_key k;

	if (!by_number(cmd) || ((flags & FL_RESULT) && !result) || may_control(true))
		return false;
	k = of_current(EV_BPF, SUM_HEAD);
	k.object = cmd;
	if (among_first(&k, 1))
		return false;
	count_folded(EV_BPF);
	return true;
}

static __always_inline void tell_bpf(int cmd, void *attr, bool user, __u32 flags, __u32 result)
{
	struct bpf_asked q = {};
	struct event_kernel *e;
	struct scratch *s;

	if (!ask(cmd, attr, user, &q) || left_out(EV_BPF) || repeated(cmd, flags, result))
		return;
	s = take(EV_BPF, RING_CRIT);
	if (!s)
		return;
	e = begin_kernel(s, EV_BPF);
	e->h.arg = result;
	e->operation = cmd;
	e->kind = q.kind;
	e->size = q.size;
	e->flags = q.flags;
	e->id = q.id;
	if (q.name)
		e->name_len = append_user(s, (void *)q.name);
	else
		e->name_len = append_string(s, q.text);
	s->flags = flags;
	send(s, e, RING_CRIT);
	give(s);
}

SEC("lsm/bpf")
int BPF_PROG(on_bpf, int cmd, union bpf_attr *attr, unsigned int size)
{
	tell_bpf(cmd, attr, false, 0, 0);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_bpf_call, struct pt_regs *regs, long ret)
{
	tell_bpf(BPF_CORE_READ(regs, di), (void *)BPF_CORE_READ(regs, si), true, FL_RESULT, failed(ret) ? -ret : 0);
	return 0;
}

/* Filters of sockets; the number of the option tells which. */
static __always_inline void tell_filter(__u32 option, __u64 size, __u64 id, long ret)
{
	struct kernel_act a = { .type = EV_BPF, .operation = KERNEL_SOCKET_FILTER, .kind = option, .size = size, .id = id };

	tell_act(&a, FL_RESULT, failed(ret) ? -ret : 0);
}

SEC("fexit/sk_attach_filter")
int BPF_PROG(on_socket_filter, struct sock_fprog_kern *p, struct sock *sk, int ret)
{
	tell_filter(SO_ATTACH_FILTER, BPF_CORE_READ(p, len), 0, ret);
	return 0;
}

SEC("fexit/sk_attach_bpf")
int BPF_PROG(on_socket_bpf, int fd, struct sock *sk, int ret)
{
	tell_filter(SO_ATTACH_BPF, 0, prog_id(fd), ret);
	return 0;
}

SEC("fexit/sk_reuseport_attach_filter")
int BPF_PROG(on_reuseport_filter, struct sock_fprog_kern *p, struct sock *sk, int ret)
{
	tell_filter(SO_ATTACH_REUSEPORT_CBPF, BPF_CORE_READ(p, len), 0, ret);
	return 0;
}

SEC("fexit/sk_reuseport_attach_bpf")
int BPF_PROG(on_reuseport_bpf, int fd, struct sock *sk, int ret)
{
	tell_filter(SO_ATTACH_REUSEPORT_EBPF, 0, prog_id(fd), ret);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_socket_option, struct pt_regs *regs, long ret)
{
	void *value = (void *)BPF_CORE_READ(regs, r10);
	__u32 option = BPF_CORE_READ(regs, dx), v = 0;

	if (BPF_CORE_READ(regs, si) != SOL_SOCKET)
		return 0;
	switch (option) {
	case SO_ATTACH_FILTER:
	case SO_ATTACH_REUSEPORT_CBPF:
		bpf_probe_read_user(&v, 2, value);
		tell_filter(option, v, 0, ret);
		break;
	case SO_ATTACH_BPF:
	case SO_ATTACH_REUSEPORT_EBPF:
		bpf_probe_read_user(&v, 4, value);
		tell_filter(option, 0, prog_id(v), ret);
		break;
	}
	return 0;
}

/* Called as well for what the kernel counts for itself, and for the copies that
 * a new thread inherits. */
SEC("lsm/perf_event_alloc")
int BPF_PROG(on_perf_event, struct perf_event *event, int ret)
{
	struct kernel_act a = { .type = EV_PERF };
	struct called x;

	if (ret || BPF_CORE_READ(event, parent))
		return 0;
	called(&x);
	if (x.number != NR_perf_event_open)
		return 0;
	a.kind = BPF_CORE_READ(event, attr.type);
	a.id = BPF_CORE_READ(event, attr.config);
	a.flags = x.e;
	tell_act(&a, 0, 0);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_perf_call, struct pt_regs *regs, long ret)
{
	void *attr = (void *)BPF_CORE_READ(regs, di);
	struct kernel_act a = { .type = EV_PERF, .flags = BPF_CORE_READ(regs, r8) };

	a.kind = attribute(attr, 0, true);
	a.id = (__u64)attribute(attr, 8, true) | (__u64)attribute(attr, 12, true) << 32;
	tell_act(&a, FL_RESULT, failed(ret) ? -ret : 0);
	return 0;
}

SEC("tp_btf/io_uring_create")
int BPF_PROG(on_uring, int fd, void *ring, __u32 entries, __u32 completions, __u32 flags)
{
	struct kernel_act a = { .type = EV_URING, .size = entries, .flags = flags };

	tell_act(&a, FL_RESULT, 0);
	return 0;
}

static __always_inline bool begins(const char *name, char second, char third)
{
	char s[4] = {};

	bpf_probe_read_kernel(s, 3, name);
	return s[0] == '[' && s[1] == second && s[2] == third;
}

static __always_inline void tell_userfault(void)
{
	struct kernel_act a = { .type = EV_USERFAULT };
	struct called x;

	called(&x);
	if (x.number == NR_userfaultfd)
		a.flags = x.a & 0xffffffff;
	tell_act(&a, 0, 0);
}

/* Descriptors of their own kind: [userfaultfd], however it was asked for, and
 * [secretmem]. */
SEC("lsm/inode_init_security_anon")
int BPF_PROG(on_anon_inode, struct inode *inode, struct qstr *name, struct inode *context, int ret)
{
	struct memory_act secret = { .type = EV_MEMFD, .kind = MEM_SECRET };
	const char *s = (const char *)BPF_CORE_READ(name, name);
	struct called x;

	if (ret)
		return 0;
	if (begins(s, 'u', 's')) {
		tell_userfault();
	} else if (begins(s, 's', 'e')) {
		called(&x);
		secret.flags = x.a & 0xffffffff;
		tell_memory(&secret);
	}
	return 0;
}

/* Before 5.12. */
SEC("fentry/anon_inode_getfd")
int BPF_PROG(on_anon_fd, const char *name)
{
	if (begins(name, 'u', 's'))
		tell_userfault();
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_userfault_call, struct pt_regs *regs, long ret)
{
	struct kernel_act a = { .type = EV_USERFAULT, .flags = BPF_CORE_READ(regs, di) & 0xffffffff };

	tell_act(&a, FL_RESULT, failed(ret) ? -ret : 0);
	return 0;
}
