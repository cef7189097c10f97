/* SPDX-License-Identifier: GPL-2.0 */
/* Connections, from the ends of system calls. The socket is the kernel's, by
 * the descriptor; only an address that the socket does not keep is read from
 * the process, which another thread may have changed by then. */
#pragma once

#include "net.h"
#include "syscall.h"

#define NR_connect 42
#define NR_accept 43
#define NR_bind 49
#define NR_listen 50
#define NR_accept4 288

static __always_inline struct sock *socket_of(struct task_struct *t, int fd)
{
	struct file *f = open_file(fd);
	struct socket *sock;

	if (!f || (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	sock = BPF_CORE_READ(f, private_data);
	return BPF_CORE_READ(sock, sk);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_connected, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct sock *sk = socket_of(t, BPF_CORE_READ(regs, di));
	const void *to = (const void *)BPF_CORE_READ(regs, si);
	struct event_net e = {};
	struct address a = {};

	if (!sk)
		return 0;
	switch (BPF_CORE_READ(sk, __sk_common.skc_family)) {
	case AF_UNIX:
		if (wanted(OPT_UNIX))
			tell_unix(to, BPF_CORE_READ(regs, dx), sk, true, FL_RESULT, ret < 0 ? -ret : 0);
		return 0;
	case AF_NETLINK:
	case AF_PACKET:
	case AF_ALG:
		return 0;
	}
	if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP || BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		return 0; /* told when the state changed */
	if (left_out(EV_CONNECT))
		return 0;
	user_address(&a, to);
	if (a.family == AF_UNSPEC)
		return 0;
	begin_net(&e, EV_CONNECT, sk);
	if (a.family == AF_INET)
		e.family = AF_INET;
	local_end(&e, sk);
	if (ret == 0 && a.family == e.family)
		remote_end(&e, sk);
	else
		parse_address(&a, e.daddr, &e.dport);
	emit_net(&e, set_result(&e, ret));
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_accepted, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct event_net e = {};
	struct sock *sk;

	if (failed(ret))
		return 0;
	sk = socket_of(t, ret);
	if (!sk)
		return 0;
	switch (BPF_CORE_READ(sk, __sk_common.skc_family)) {
	case AF_UNIX:
	case AF_ALG:
		return 0;
	}
	if (left_out(EV_ACCEPT))
		return 0;
	begin_net(&e, EV_ACCEPT, sk);
	local_end(&e, sk);
	remote_end(&e, sk);
	e.bits = NET_INGRESS;
	emit_net(&e, FL_RESULT);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_bound, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct sock *sk = socket_of(t, BPF_CORE_READ(regs, di));
	struct event_net e = {};
	struct address a = {};
	__u32 type = BPF_CORE_READ(regs, orig_ax) == NR_listen ? EV_LISTEN : EV_BIND;

	if (!sk)
		return 0;
	switch (BPF_CORE_READ(sk, __sk_common.skc_family)) {
	case AF_UNIX:
	case AF_NETLINK:
	case AF_PACKET:
	case AF_ALG:
		return 0;
	}
	if (left_out(type))
		return 0;
	begin_net(&e, type, sk);
	if (type == EV_LISTEN)
		e.backlog = BPF_CORE_READ(regs, si);
	if (type == EV_BIND && ret < 0) {
		user_address(&a, (const void *)BPF_CORE_READ(regs, si));
		parse_address(&a, e.saddr, &e.sport);
		if (a.family == AF_INET)
			e.family = AF_INET;
	} else {
		local_end(&e, sk);
	}
	emit_net(&e, set_result(&e, ret));
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_made, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	int family = BPF_CORE_READ(regs, di), type = BPF_CORE_READ(regs, si);

	if (failed(ret) || !raw_kind(family, type))
		return 0;
	tell_raw(socket_of(t, ret), family, type, BPF_CORE_READ(regs, dx), FL_RESULT);
	return 0;
}
