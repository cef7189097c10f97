/* SPDX-License-Identifier: GPL-2.0 */
/* The numbers of a process's namespaces, and which of them changed. */
#pragma once

#include "maps.h"

#define CLONE_NEWTIME 0x00000080
#define CLONE_NEWNS 0x00020000
#define CLONE_NEWCGROUP 0x02000000
#define CLONE_NEWUTS 0x04000000
#define CLONE_NEWIPC 0x08000000
#define CLONE_NEWUSER 0x10000000
#define CLONE_NEWPID 0x20000000
#define CLONE_NEWNET 0x40000000

#define NR_clone 56
#define NR_unshare 272
#define NR_setns 308

/* One namespace: its number, and its bit where it is not the old one. An old
 * set of null means that what changed is not known here. */
#define one_namespace(e, old, new, member, number, bit, changed)                           \
	do {                                                                               \
		(e)->number = BPF_CORE_READ(new, member, ns.inum);                         \
		if ((old) && BPF_CORE_READ(old, member) != BPF_CORE_READ(new, member))     \
			changed |= bit;                                                    \
	} while (0)

/* fill_namespaces takes all but the user namespace, which belongs to the
 * credentials. New processes' pid and time namespaces are those that count. */
static __always_inline __u32 fill_namespaces(struct event_namespace *e, struct nsproxy *old, struct nsproxy *new)
{
	__u32 changed = 0;

	one_namespace(e, old, new, mnt_ns, mnt, CLONE_NEWNS, changed);
	one_namespace(e, old, new, pid_ns_for_children, pid, CLONE_NEWPID, changed);
	one_namespace(e, old, new, net_ns, net, CLONE_NEWNET, changed);
	one_namespace(e, old, new, uts_ns, uts, CLONE_NEWUTS, changed);
	one_namespace(e, old, new, ipc_ns, ipc, CLONE_NEWIPC, changed);
	one_namespace(e, old, new, cgroup_ns, cgroup, CLONE_NEWCGROUP, changed);
	one_namespace(e, old, new, time_ns_for_children, time, CLONE_NEWTIME, changed);
	return changed;
}
