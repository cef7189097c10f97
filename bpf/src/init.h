/* SPDX-License-Identifier: GPL-2.0 */
/* The first process may end the agent once it has become another program: that
 * is how a system goes down. */
#pragma once

#include "maps.h"

struct guard {
	__u64 init_image; /* inode of the first process's executable when the agent began */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guard);
} guard SEC(".maps");

/* remember_init is called with every process that runs when the agent begins.
 * The inode cannot become that of another file while the process runs it. */
static __always_inline void remember_init(struct task_struct *t)
{
	__u32 zero = 0;
	struct guard *g = bpf_map_lookup_elem(&guard, &zero);

	if (g && BPF_CORE_READ(t, tgid) == 1)
		g->init_image = (__u64)BPF_CORE_READ(t, mm, exe_file, f_inode);
}

static __always_inline bool goes_down(struct task_struct *t)
{
	__u32 zero = 0;
	struct guard *g = bpf_map_lookup_elem(&guard, &zero);

	return g && g->init_image && BPF_CORE_READ(t, tgid) == 1 &&
	       (__u64)BPF_CORE_READ(t, mm, exe_file, f_inode) != g->init_image;
}
