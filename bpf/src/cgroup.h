/* SPDX-License-Identifier: GPL-2.0 */
/* Notes for the agent: which control groups there are, and who moves where. */
#pragma once

#include "path.h"

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir, struct cgroup *cgrp, const char *path)
{
	struct scratch *s;
	struct event_cgroup *e;
	__u32 off;
	long n;

	if (BPF_CORE_READ(cgrp, root, hierarchy_id))
		return 0;
	s = take(EV_CGROUP, RING_CRIT);
	if (!s)
		return 0;
	e = (struct event_cgroup *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	head(&e->h, EV_CGROUP, (struct task_struct *)bpf_get_current_task());
	e->id = BPF_CORE_READ(cgrp, kn, id);
	s->off = sizeof(*e);
	off = s->off & (DATA_BYTES - 1);
	n = bpf_probe_read_kernel_str(&s->data[off], 4096, path);
	if (n > 0) {
		e->path_len = n;
		s->off = off + n;
	}
	s->flags = FL_NOTE;
	send(s, e, RING_CRIT);
	give(s);
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_cgroup_attach, struct cgroup *cgrp, const char *path, struct task_struct *t, bool threadgroup)
{
	struct event_cgroup e = {};

	if (BPF_CORE_READ(cgrp, root, hierarchy_id) || BPF_CORE_READ(t, pid) != BPF_CORE_READ(t, tgid))
		return 0;
	head(&e.h, EV_CGROUP, t);
	e.h.tgid = e.h.tid = BPF_CORE_READ(t, tgid);
	e.h.arg = 1;
	e.id = BPF_CORE_READ(cgrp, kn, id);
	emit(&e, FL_NOTE, RING_CRIT);
	return 0;
}
