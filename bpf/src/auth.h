/* SPDX-License-Identifier: GPL-2.0 */
/* Logins: what programs that check identities tell the kernel's audit, whether
 * or not it listens. */
#pragma once

#include "process.h"
#include "syscall.h"

#define MAX_AUTH_TEXT 4096

struct nlmsghdr_k {
	__u32 len;
	__u16 type;
	__u16 flags;
	__u32 seq;
	__u32 pid;
};

#define AUTH_FIRST 1100
/* Bits from AUTH_FIRST: checks of identity, credentials, sessions, accounts and
 * groups; not what services, keyboards and security modules have to say. */
#define AUTH_MESSAGES                                                                                         \
	(BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(9) | BIT(10) | BIT(12) | \
	 BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(19) | BIT(23) | BIT(25) | BIT(26) | BIT(32) |  \
	 BIT(33) | BIT(35) | BIT(36))

/* Audit takes such messages only from who may write them; so does this, or
 * anybody could invent logins. */
static __always_inline bool may_audit(struct task_struct *t)
{
	const struct cred *c = BPF_CORE_READ(t, cred);

	return capabilities(&c->cap_effective) & BIT(CAP_AUDIT_WRITE) && BPF_CORE_READ(c, user_ns, level) == 0;
}

static __always_inline bool is_audit(struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_family) == AF_NETLINK &&
	       BPF_CORE_READ(sk, sk_protocol) == NETLINK_AUDIT;
}

static __always_inline void tell_auth(struct nlmsghdr_k *m, __u32 have, const void *from, bool user)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	__u32 kind = m->type - AUTH_FIRST;
	__u64 n = m->len;
	struct event_auth *e;
	struct scratch *s;
	long err;

	if (kind >= 64 || !(BIT(kind) & AUTH_MESSAGES) || !may_audit(t) || own(EV_AUTH))
		return;
	if (n > have)
		n = have;
	if (n <= sizeof(*m))
		return;
	n -= sizeof(*m);
	s = take(EV_AUTH, RING_CRIT);
	if (!s)
		return;
	e = (struct event_auth *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	head(&e->h, EV_AUTH, t);
	e->message = m->type;
	e->text_total = n;
	e->loginuid = -1;
	e->sessionid = -1;
	if (bpf_core_field_exists(t->loginuid)) {
		e->loginuid = BPF_CORE_READ(t, loginuid.val);
		e->sessionid = BPF_CORE_READ(t, sessionid);
	}
	if (n > MAX_AUTH_TEXT)
		n = MAX_AUTH_TEXT;
	n = ((n - 1) & (MAX_AUTH_TEXT - 1)) + 1; /* plain to any verifier */
	if (user)
		err = bpf_probe_read_user(&s->data[sizeof(*e)], n, from);
	else
		err = bpf_probe_read_kernel(&s->data[sizeof(*e)], n, from);
	if (err)
		n = 0;
	e->text_len = n;
	*(volatile __u32 *)&s->off = sizeof(*e) + n; /* see path.h */
	send(s, e, RING_CRIT);
	give(s);
}

SEC("lsm/netlink_send")
int BPF_PROG(on_netlink_send, struct sock *sk, struct sk_buff *skb)
{
	struct nlmsghdr_k m = {};
	unsigned char *data;

	if (!is_audit(sk))
		return 0;
	data = BPF_CORE_READ(skb, data);
	if (!bpf_probe_read_kernel(&m, sizeof(m), data))
		tell_auth(&m, BPF_CORE_READ(skb, len), data + sizeof(m), false);
	return 0;
}

/* The same from the process's memory, after the call. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_sent, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct nlmsghdr_k m = {};
	struct socket *sock;
	struct file *f;
	struct sock *sk;
	char *data;

	if (failed(ret))
		return 0;
	f = file_of(t, BPF_CORE_READ(regs, di));
	if (!f || (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	sock = BPF_CORE_READ(f, private_data);
	sk = BPF_CORE_READ(sock, sk);
	if (!is_audit(sk))
		return 0;
	data = (char *)BPF_CORE_READ(regs, si);
	if (!bpf_probe_read_user(&m, sizeof(m), data))
		tell_auth(&m, ret, data + sizeof(m), true);
	return 0;
}
