/* SPDX-License-Identifier: GPL-2.0 */
/* The first process may end the agent once it has become a program that takes
 * the machine down: that is how systemd goes down. Another file alone says
 * nothing, since an upgrade of init brings one. */
#pragma once

#include "maps.h"

/* Eight bytes of a name as one number. */
#define EIGHT(a, b, c, d, e, f, g, h)                                                                          \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | (__u64)(f) << 40 | \
	 (__u64)(g) << 48 | (__u64)(h) << 56)

/* The names of these programs; the buffer is zero behind a name. */
static __always_inline bool takes_down(const __u64 *n)
{
	const __u64 shutdown = EIGHT('s', 'h', 'u', 't', 'd', 'o', 'w', 'n');

	if (n[0] == EIGHT('s', 'y', 's', 't', 'e', 'm', 'd', '-'))
		return n[1] == shutdown && !n[2];
	if (n[1])
		return false;
	return n[0] == shutdown || n[0] == EIGHT('h', 'a', 'l', 't', 0, 0, 0, 0) ||
	       n[0] == EIGHT('p', 'o', 'w', 'e', 'r', 'o', 'f', 'f') || n[0] == EIGHT('r', 'e', 'b', 'o', 'o', 't', 0, 0) ||
	       n[0] == EIGHT('k', 'e', 'x', 'e', 'c', 0, 0, 0);
}

/* note_init is called with every program that a process becomes, and with what
 * runs already when the agent begins: the name is the file's own, not that of a
 * link to it. */
static __always_inline void note_init(struct task_struct *t, struct dentry *d)
{
	struct course *c = under_way();
	__u64 name[3] = {}; /* the longest, its end, and what follows */

	if (!c || BPF_CORE_READ(t, tgid) != 1)
		return;
	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(d, d_name.name));
	c->down = takes_down(name);
}

static __always_inline bool goes_down(struct task_struct *t)
{
	struct course *c = under_way();

	return c && c->down && BPF_CORE_READ(t, tgid) == 1;
}
