/* SPDX-License-Identifier: GPL-2.0 */
/* Rings, scratch buffers and the one way out for an event. */
#pragma once

#include "kernel.h"
#include "event.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define RING_CRIT 0
#define RING_BULK 1
#define CRIT_BYTES (1 << 20)
#define BULK_BYTES (8 << 20)

/* A quiet reader is woken by the first event; a busy one polls. */
#define WAKE_EVERY_NS 5000000

#define DATA_BYTES 16384 /* offsets are below this */
#define SLACK_BYTES 4352 /* the longest single read behind an offset */
#define SLOTS 3

struct scratch {
	__u32 busy;
	__u32 off; /* in memory on purpose: see path.h */
	__u32 flags;
	__u32 start;
	__u64 dentry;
	__u64 mnt;
	__u64 root;
	char data[DATA_BYTES + SLACK_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, CRIT_BYTES);
} crit SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, BULK_BYTES);
} bulk SEC(".maps");

/* Entries: one for each possible CPU, set before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_stats);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} conf SEC(".maps");

/* Open file descriptions that have been written through, by their address.
 * Full: events are emitted unsuppressed, more and never fewer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} wr SEC(".maps");

struct exit_key {
	__u64 start;
	__u32 tgid;
	__u32 pad;
};

/* Thread groups whose exit has been told, for those with several threads. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct exit_key);
	__type(value, __u8);
} gone SEC(".maps");

static __always_inline struct cpu_stats *my_stats(__u32 *cpu)
{
	*cpu = bpf_get_smp_processor_id();
	return bpf_map_lookup_elem(&stats, cpu);
}

static __always_inline void count_drop(__u32 type, __u32 reason)
{
	__u32 cpu;
	struct cpu_stats *s = my_stats(&cpu);

	if (s)
		__sync_fetch_and_add(&s->drops[type & (EV_TYPES - 1)][reason & (DROP_REASONS - 1)], 1);
}

/* A drop for which no sequence was taken yet takes one now, so that it leaves
 * a hole like any other. */
static __always_inline void drop_unsequenced(__u32 type, __u32 ring, __u32 reason)
{
	__u32 cpu;
	struct cpu_stats *s = my_stats(&cpu);

	if (!s)
		return;
	__sync_fetch_and_add(&s->seq[ring & 1], 1);
	__sync_fetch_and_add(&s->drops[type & (EV_TYPES - 1)][reason & (DROP_REASONS - 1)], 1);
}

/* take claims a scratch buffer of this CPU. Programs of one CPU interrupt each
 * other (they may be preempted), and not in a stack's order, so each buffer
 * carries its own lock. */
static __always_inline struct scratch *take(__u32 type, __u32 ring)
{
#pragma unroll
	for (__u32 i = 0; i < SLOTS; i++) {
		__u32 key = i;
		struct scratch *s = bpf_map_lookup_elem(&scratch, &key);

		if (s && __sync_val_compare_and_swap(&s->busy, 0, 1) == 0) {
			s->flags = 0;
			return s;
		}
	}
	drop_unsequenced(type, ring, DROP_NESTED);
	return 0;
}

static __always_inline void give(struct scratch *s)
{
	__sync_lock_test_and_set(&s->busy, 0);
}

/* own reports whether an event comes from the agent itself; those are counted,
 * not sent. That also is how the agent finds out which hooks really fire. */
static __always_inline bool own(__u32 type)
{
	__u32 zero = 0, cpu;
	struct config *c = bpf_map_lookup_elem(&conf, &zero);
	struct cpu_stats *s;

	if (!c || c->self != bpf_get_current_pid_tgid() >> 32)
		return false;
	if (type == EV_CONNECT && !c->quiet)
		return false;
	s = my_stats(&cpu);
	if (s)
		__sync_fetch_and_add(&s->own[type & (EV_TYPES - 1)], 1);
	return true;
}

static __always_inline __u32 mount_namespace(struct task_struct *t)
{
	/* nsproxy is gone in a task that exits; reads of a null pointer give 0. */
	return BPF_CORE_READ(t, nsproxy, mnt_ns, ns.inum);
}

static __always_inline void head(struct event_head *h, __u32 type, __u32 ring, struct task_struct *t)
{
	__u64 id = bpf_get_current_pid_tgid();

	h->type = type;
	h->ring = ring;
	h->tgid = id >> 32;
	h->tid = id;
	h->start = BPF_CORE_READ(t, group_leader, start_boottime);
	h->euid = BPF_CORE_READ(t, cred, euid.val);
	h->mntns = mount_namespace(t);
	bpf_core_read(&h->comm, sizeof(h->comm), &t->comm);
}

/* emit completes the head and sends len bytes of e: sequence first, so that
 * whatever happens afterwards leaves a hole in the lane. */
static __always_inline void emit(void *e, __u32 len, __u32 flags, __u32 ring)
{
	struct event_head *h = e;
	struct cpu_stats *s;
	__u32 cpu;
	__u64 wake = BPF_RB_NO_WAKEUP, fill;
	long err;

	s = my_stats(&cpu);
	if (!s)
		return;
	h->len = len;
	h->flags = flags;
	h->cpu = cpu;
	h->time = bpf_ktime_get_boot_ns();
	h->seq = __sync_fetch_and_add(&s->seq[ring & 1], 1);
	fill = ring == RING_CRIT ? bpf_ringbuf_query(&crit, BPF_RB_AVAIL_DATA)
				 : bpf_ringbuf_query(&bulk, BPF_RB_AVAIL_DATA);
	if (h->time - s->woken > WAKE_EVERY_NS ||
	    fill >= (ring == RING_CRIT ? CRIT_BYTES / 4 : BULK_BYTES / 4)) {
		if (h->time - s->woken > WAKE_EVERY_NS / 10) {
			s->woken = h->time;
			wake = BPF_RB_FORCE_WAKEUP;
		}
	}
	err = ring == RING_CRIT ? bpf_ringbuf_output(&crit, e, len, wake)
				: bpf_ringbuf_output(&bulk, e, len, wake);
	if (err)
		count_drop(h->type, DROP_RING);
}

/* send emits what is in a scratch buffer. */
static __always_inline void send(struct scratch *s, __u32 ring)
{
	__u32 len = s->off;

	if (len > DATA_BYTES)
		len = DATA_BYTES;
	emit(s->data, len, s->flags, ring);
}
