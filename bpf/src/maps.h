/* SPDX-License-Identifier: GPL-2.0 */
/* Rings, scratch buffers and the one way out for an event. */
#pragma once

#include "kernel.h"
#include "event_file.h"
#include "event_kernel.h"
#include "event_memory.h"
#include "event_net.h"
#include "event_process.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define RING_CRIT 0
#define RING_BULK 1
#define CRIT_BYTES (1 << 20)
#define BULK_BYTES (8 << 20)

/* A reader that is woken twice within this time has not been able to run. */
#define WAKE_EVERY_NS 500000

/* insert enters what is not there yet, or says -EEXIST. The result is an int:
 * before 6.4 the kernel's functions give one, which it calls directly, and the
 * upper half of the register is not that of a negative number. */
static __always_inline int insert(void *map, const void *key, const void *value)
{
	return (int)bpf_map_update_elem(map, key, value, BPF_NOEXIST);
}

#ifdef OLD
/* Kernels before 5.12 know no atomic operation that gives a value back (for
 * numbers see take_number). They run programs like these with preemption off;
 * one that a softirq runs in between gives back what it claims before it ends,
 * so that it cannot change what the other has seen. */
#define claim(p)                                                \
	({                                                      \
		__u32 was = *(volatile __u32 *)(p);             \
		*(volatile __u32 *)(p) = 1;                     \
		was == 0;                                       \
	})
#define unclaim(p) (*(volatile __u32 *)(p) = 0)
#else
#define claim(p) (__sync_val_compare_and_swap(p, 0, 1) == 0)
#define unclaim(p) __sync_lock_test_and_set(p, 0)
#endif

#define DATA_BYTES 16384 /* offsets are below this */
#define SLACK_BYTES 4352 /* the longest single read behind an offset */
#define SLOTS 3

/* What remains to be done with an event that has its place in a lane. */
struct passage {
	__u64 wake;
	__u32 ring;
	__u32 pad;
};

struct scratch {
	__u32 busy;
	__u32 off; /* in memory on purpose: see path.h */
	__u32 flags;
	__u32 start;
	__u32 inner; /* see walk */
	__u32 ended; /* see rounds */
	__u64 dentry;
	__u64 mnt;
	__u64 root;
	__u64 place; /* root of the leaf's mount */
	struct passage passage;
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

/* Until when the reader looks into the rings by itself, boot time: it writes
 * this, and 0 before it goes to sleep. A quiet reader is so woken by the first
 * event, a busy one by none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} pace SEC(".maps");

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
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(value, struct config);
} conf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct course);
} course SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct switches);
} orders SEC(".maps");

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

static __always_inline void add_drop(struct cpu_stats *s, __u32 type, __u32 ring, __u32 reason)
{
	__sync_fetch_and_add(&s->drops[ring & 1][type & (EV_TYPES - 1)][reason & (DROP_REASONS - 1)], 1);
	__sync_fetch_and_add(&s->dropped, 1);
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
	add_drop(s, type, ring, reason);
}

#ifdef OLD
#define NUMBER_TRIES 4

/* take_number takes the next sequence of a lane. A softirq may run a program
 * between any two steps, to its end. If the counter has moved by one from before
 * the addition to after it, then nobody came between and the number is ours;
 * else ours is one of several, and which is not known: it is given up as a drop,
 * which is one too many if the next try succeeds, but neither does a number come
 * twice nor does a hole stay without its count. */
static __always_inline bool take_number(struct cpu_stats *s, __u32 type, __u32 ring, __u64 *number)
{
	volatile __u64 *next = &s->seq[ring & 1];
	__u64 before, after;

#pragma unroll
	for (__u32 i = 0; i < NUMBER_TRIES; i++) {
		before = *next;
		__sync_fetch_and_add(&s->seq[ring & 1], 1);
		after = *next;
		*number = before;
		if (after == before + 1)
			return true;
		add_drop(s, type, ring, DROP_NESTED);
	}
	return false;
}
#else
static __always_inline bool take_number(struct cpu_stats *s, __u32 type, __u32 ring, __u64 *number)
{
	*number = __sync_fetch_and_add(&s->seq[ring & 1], 1);
	return true;
}
#endif

/* take_quietly claims a scratch buffer of this CPU. Programs of one CPU interrupt each
 * other (they may be preempted), and not in a stack's order, so each buffer
 * carries its own lock. */
static __always_inline struct scratch *take_quietly(void)
{
#pragma unroll
	for (__u32 i = 0; i < SLOTS; i++) {
		__u32 key = i;
		struct scratch *s = bpf_map_lookup_elem(&scratch, &key);

		if (s && claim(&s->busy)) {
			s->flags = 0;
			return s;
		}
	}
	return 0;
}

/* take is for an event: without a buffer it is dropped. */
static __always_inline struct scratch *take(__u32 type, __u32 ring)
{
	struct scratch *s = take_quietly();

	if (!s)
		drop_unsequenced(type, ring, DROP_NESTED);
	return s;
}

static __always_inline void give(struct scratch *s)
{
	unclaim(&s->busy);
}

static __always_inline struct config *configuration(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&conf, &zero);
}

/* protecting says whether what is done to the agent is refused now. */
static __always_inline bool protecting(void)
{
	__u32 zero = 0;
	struct switches *s = bpf_map_lookup_elem(&orders, &zero);

	return s && s->protect;
}

static __always_inline struct course *under_way(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&course, &zero);
}

/* wanted says whether an optional class is. */
static __always_inline bool wanted(__u32 option)
{
	struct config *c = configuration();

	return c && (c->classes & option);
}

/* The helper that gives it is none for programs that see packets, before 6.2. */
static __always_inline __u32 current_tgid(void)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(t, tgid);
}

#define BIT(n) (1ULL << (n))

/* What a canary does, the rare ones a few times, and how long it may take. */
#define CANARY_RARE \
	(BIT(EV_CREDS) | BIT(EV_NAMESPACE) | BIT(EV_MOUNT) | BIT(EV_UNMOUNT) | BIT(EV_PARAM) | BIT(EV_BPF) | BIT(EV_PERF) | \
	 BIT(EV_USERFAULT) | BIT(EV_URING) | BIT(EV_MEMFD) | BIT(EV_EXEC) | BIT(EV_FORK) | BIT(EV_EXIT))
#define CANARY_TYPES \
	(CANARY_RARE | BIT(EV_CREATE) | BIT(EV_WRITE) | BIT(EV_CLOSE) | BIT(EV_RENAME) | BIT(EV_UNLINK) | BIT(EV_TRUNCATE) | \
	 BIT(EV_CHMOD) | BIT(EV_CHOWN) | BIT(EV_LINK) | BIT(EV_XATTR) | BIT(EV_UTIME) | BIT(EV_CONNECT) | BIT(EV_ACCEPT) | \
	 BIT(EV_LISTEN) | BIT(EV_BIND) | BIT(EV_SEND) | BIT(EV_FLOW) | BIT(EV_MAP) | BIT(EV_PROTECT) | BIT(EV_ALLOCATE))
#define CANARY_FEW 4
#define CANARY_MANY 32
#define CANARY_NS 1000000000ULL

/* usual says whether an act of the canary is one that it is for. What goes
 * beyond that is told: whoever gets hold of it gains no place to hide. */
static __always_inline bool usual(struct course *c, __u32 type)
{
	__u64 bit = BIT(type & (EV_TYPES - 1));

	if (!(bit & CANARY_TYPES) || bpf_ktime_get_boot_ns() - c->since > CANARY_NS)
		return false;
	__sync_fetch_and_add(&c->acts[type & (EV_TYPES - 1)], 1);
	return c->acts[type & (EV_TYPES - 1)] <= (bit & CANARY_RARE ? CANARY_FEW : CANARY_MANY);
}

/* own reports whether an event comes from the agent itself, or is one that the
 * child does which acts for it; those are counted, not sent. That also is how
 * the agent finds out which hooks really fire. */
static __always_inline bool own_by(__u32 tgid, __u32 type)
{
	struct config *c = configuration();
	struct course *r = under_way();
	struct cpu_stats *s;
	__u32 cpu;

	if (!c || !r || !tgid || (c->self != tgid && r->canary != tgid))
		return false;
	if (type == EV_CONNECT && c->self == tgid)
		return false;
	s = my_stats(&cpu);
	if (s) {
		__sync_fetch_and_add(&s->own[type & (EV_TYPES - 1)], 1);
		if (type == EV_SEND) /* told at once and as a sum, by the same programs */
			__sync_fetch_and_add(&s->own[EV_FLOW], 1);
	}
	return c->self == tgid || usual(r, type);
}

static __always_inline bool own(__u32 type)
{
	return own_by(current_tgid(), type);
}

static __always_inline __u32 mount_namespace(struct task_struct *t)
{
	/* nsproxy is gone in a task that exits; reads of a null pointer give 0. */
	return BPF_CORE_READ(t, nsproxy, mnt_ns, ns.inum);
}

/* The registers current entered the kernel with. */
static __always_inline struct pt_regs *registers(void)
{
#ifdef OLD
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	return (struct pt_regs *)((unsigned long)BPF_CORE_READ(t, stack) + THREAD_SIZE -
				  bpf_core_type_size(struct pt_regs));
#else
	return (struct pt_regs *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
#endif
}

/* The number of the system call that current is in: for the telling only. */
static __always_inline __u32 call_number(void)
{
	return BPF_CORE_READ(registers(), orig_ax);
}

#define SECOND 1000000000LL
/* New kernels keep a mark of their own in the highest bit. */
#define NANOSECONDS 0x3fffffff

/* When the content of an inode was changed last, Unix nanoseconds. */
static __always_inline __s64 modified(struct inode *inode)
{
	struct inode___now *now = (void *)inode;
	struct inode___until_6_10 *mid = (void *)inode;
	struct inode___until_6_5 *old = (void *)inode;

	if (bpf_core_field_exists(now->i_mtime_sec))
		return BPF_CORE_READ(now, i_mtime_sec) * SECOND + (BPF_CORE_READ(now, i_mtime_nsec) & NANOSECONDS);
	if (bpf_core_field_exists(mid->__i_mtime))
		return BPF_CORE_READ(mid, __i_mtime.tv_sec) * SECOND + BPF_CORE_READ(mid, __i_mtime.tv_nsec);
	return BPF_CORE_READ(old, i_mtime.tv_sec) * SECOND + BPF_CORE_READ(old, i_mtime.tv_nsec);
}

/* When anything of an inode was changed last, Unix nanoseconds. */
static __always_inline __s64 changed(struct inode *inode)
{
	struct inode___now *now = (void *)inode;
	struct inode___until_6_10 *mid = (void *)inode;
	struct inode___until_6_5 *old = (void *)inode;

	if (bpf_core_field_exists(now->i_ctime_sec))
		return BPF_CORE_READ(now, i_ctime_sec) * SECOND + (BPF_CORE_READ(now, i_ctime_nsec) & NANOSECONDS);
	if (bpf_core_field_exists(mid->__i_ctime))
		return BPF_CORE_READ(mid, __i_ctime.tv_sec) * SECOND + BPF_CORE_READ(mid, __i_ctime.tv_nsec);
	return BPF_CORE_READ(old, i_ctime.tv_sec) * SECOND + BPF_CORE_READ(old, i_ctime.tv_nsec);
}

/* When the content of an inode was read last, Unix nanoseconds. */
static __always_inline __s64 accessed(struct inode *inode)
{
	struct inode___now *now = (void *)inode;
	struct inode___until_6_10 *mid = (void *)inode;
	struct inode___until_6_5 *old = (void *)inode;

	if (bpf_core_field_exists(now->i_atime_sec))
		return BPF_CORE_READ(now, i_atime_sec) * SECOND + BPF_CORE_READ(now, i_atime_nsec);
	if (bpf_core_field_exists(mid->__i_atime))
		return BPF_CORE_READ(mid, __i_atime.tv_sec) * SECOND + BPF_CORE_READ(mid, __i_atime.tv_nsec);
	return BPF_CORE_READ(old, i_atime.tv_sec) * SECOND + BPF_CORE_READ(old, i_atime.tv_nsec);
}

static __always_inline void head(struct event_head *h, __u32 type, struct task_struct *t)
{
	struct task_struct *self = (struct task_struct *)bpf_get_current_task();

	h->type = type;
	h->tgid = BPF_CORE_READ(self, tgid);
	h->tid = BPF_CORE_READ(self, pid);
	h->start = BPF_CORE_READ(t, group_leader, start_boottime);
	h->euid = BPF_CORE_READ(t, cred, euid.val);
	h->mntns = mount_namespace(t);
}

/* head_without_helper is head where the kernel has no helper that tells current's numbers. */
static __always_inline void head_without_helper(struct event_head *h, __u32 type, struct task_struct *t)
{
	h->type = type;
	h->tgid = BPF_CORE_READ(t, tgid);
	h->tid = BPF_CORE_READ(t, pid);
	h->start = BPF_CORE_READ(t, group_leader, start_boottime);
	h->euid = BPF_CORE_READ(t, cred, euid.val);
	h->mntns = mount_namespace(t);
}

#include "pack.h"

/* A storm of what any process can make must not push out what tells of an
 * intrusion: such types may fill the critical ring only so far, and go into the
 * other one from there on. */
#define HALF_OF_CRIT (BIT(EV_FORK) | BIT(EV_EXIT) | BIT(EV_SIGNAL) | BIT(EV_COMM) | BIT(EV_BPF) | BIT(EV_CGROUP) | BIT(EV_AGGREGATE))
#define MOST_OF_CRIT \
	(BIT(EV_EXEC) | BIT(EV_CREDS) | BIT(EV_NAMESPACE) | BIT(EV_CHROOT) | BIT(EV_TRACE) | BIT(EV_PERF) | \
	 BIT(EV_URING) | BIT(EV_USERFAULT) | BIT(EV_MEMFD) | BIT(EV_MOUNT) | BIT(EV_UNMOUNT) | BIT(EV_PIVOT) | BIT(EV_AUTH) | BIT(EV_PARAM))

/* How far a process beyond its budget may fill the bulk ring with what is not
 * folded: the rest is for the others. */
#define HEAVY_OF_BULK (BULK_BYTES / 2)

/* What the last type to give way leaves, so that it goes into the bulk ring
 * before a reservation fails. */
#define SPARE_OF_CRIT 32768

static __always_inline __u64 crit_limit(__u32 type)
{
	__u64 bit = 1ULL << (type & (EV_TYPES - 1));

	if (bit & HALF_OF_CRIT)
		return CRIT_BYTES / 2;
	if (bit & MOST_OF_CRIT)
		return CRIT_BYTES / 4 * 3;
	return CRIT_BYTES - SPARE_OF_CRIT;
}

/* A process may do twice what its budget allows in a second at once; when it
 * has, its acts are folded, or give way, until it has let half of that go by. */
#define BURST_NS (2 * SECOND)
#define RELIEF_NS SECOND

/* How many of a kind that is not folded do not give way; of those of the critical
 * ring, together. */
#define LIGHT_ACTS 1024

struct bucket {
	__u64 full; /* time at which all that was done is paid for */
	__u64 folded; /* acts, since it went over */
	__u32 over;
	__u16 pressing; /* 1: over its budget with acts of the critical ring */
	__u16 light; /* those of them that did not give way, since then */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct exit_key);
	__type(value, struct bucket);
} buckets SEC(".maps");

static __always_inline void count_folded(__u32 type)
{
	struct cpu_stats *s;
	__u32 cpu;

	s = my_stats(&cpu);
	if (s)
		__sync_fetch_and_add(&s->folded[type & (EV_TYPES - 1)], 1);
}

/* Kinds of the critical ring that a process can make without end, most of them
 * without any right: attempts that the kernel refuses are told too. Those of the
 * bulk ring are booked where they are folded. */
#define BOOKED_TYPES                                                                                        \
	(BIT(EV_CREDS) | BIT(EV_NAMESPACE) | BIT(EV_CHROOT) | BIT(EV_TRACE) | BIT(EV_SIGNAL) | BIT(EV_COMM) | \
	 BIT(EV_CGROUP) | BIT(EV_MOUNT) | BIT(EV_UNMOUNT) | BIT(EV_PIVOT) | BIT(EV_PARAM) | BIT(EV_BPF) |      \
	 BIT(EV_PERF) | BIT(EV_USERFAULT) | BIT(EV_URING))

/* presses books such an act of the current process, on the same account as the
 * others, and says whether it is to give way. */
static __always_inline bool presses(__u32 type)
{
	struct config *c = configuration();
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct exit_key k = {};
	struct bucket *b, fresh = {};
	__u64 now, cost, full;

	if (!(BIT(type & (EV_TYPES - 1)) & BOOKED_TYPES) || !c || !c->budget)
		return false;
	cost = SECOND / c->budget;
	now = bpf_ktime_get_boot_ns();
	k.start = BPF_CORE_READ(t, group_leader, start_boottime);
	k.tgid = BPF_CORE_READ(t, tgid);
	b = bpf_map_lookup_elem(&buckets, &k);
	if (!b) {
		fresh.full = now + cost;
		bpf_map_update_elem(&buckets, &k, &fresh, BPF_ANY);
		return false;
	}
	full = b->full > now ? b->full : now;
	if (full + cost <= now + BURST_NS)
		full += cost;
	b->full = full;
	if (!b->pressing) {
		if (full + cost <= now + BURST_NS)
			return false;
		b->pressing = 1;
		b->light = 0;
	} else if (full < now + RELIEF_NS) {
		b->pressing = 0;
		return false;
	}
	if (b->light >= LIGHT_ACTS)
		return true;
	b->light++;
	return false;
}

/* bounded is a length that the verifier believes to be below DATA_BYTES where it
 * is used: before 5.16 it forgets what it knew of a number that the compiler
 * has put aside on the stack. */
static __always_inline __u64 bounded(__u64 len)
{
	asm volatile("%0 &= %1" : "+r"(len) : "i"(DATA_BYTES - 1));
	return len;
}

/* enter completes the head: ring, time, and the sequence first of all that can
 * fail, so that whatever happens afterwards leaves a hole in the lane. A note
 * (FL_NOTE) has no sequence; where there is little room it is left out, and only
 * counted. False: there is nothing to send. */
static __always_inline bool enter(struct event_head *h, __u32 flags, __u32 ring, struct passage *p)
{
	struct cpu_stats *s;
	__u32 cpu, zero = 0;
	__u64 fill = 0, number, *until;

	s = my_stats(&cpu);
	if (!s)
		return false;
	if (ring == RING_CRIT) {
		if (!(flags & FL_NOTE) && presses(h->type))
			flags |= FL_HEAVY;
		fill = bpf_ringbuf_query(&crit, BPF_RB_AVAIL_DATA);
		if (flags & FL_NOTE) {
			if (fill > CRIT_BYTES / 4) {
				__sync_fetch_and_add(&s->notes, 1);
				return false;
			}
		} else if (fill > ((flags & FL_HEAVY) ? CRIT_BYTES / 4 : crit_limit(h->type))) {
			ring = RING_BULK;
		}
	}
	if (ring == RING_BULK) {
		fill = bpf_ringbuf_query(&bulk, BPF_RB_AVAIL_DATA);
		if ((flags & FL_HEAVY) && fill > HEAVY_OF_BULK) {
			__sync_fetch_and_add(&s->seq[RING_BULK], 1);
			add_drop(s, h->type, RING_BULK, DROP_RING);
			return false;
		}
	}
	h->ring = ring;
	h->flags = flags;
	h->cpu = cpu;
	h->time = bpf_ktime_get_boot_ns();
	if (!(flags & FL_NOTE)) {
		if (!take_number(s, h->type, ring, &number))
			return false;
		h->seq = number;
	}
	p->ring = ring;
	p->wake = BPF_RB_NO_WAKEUP;
	until = bpf_map_lookup_elem(&pace, &zero);
	if ((!until || h->time > *until || fill >= (ring == RING_CRIT ? CRIT_BYTES / 4 : BULK_BYTES / 4)) &&
	    h->time - s->woken > WAKE_EVERY_NS) {
		s->woken = h->time;
		s->wakes++;
		p->wake = BPF_RB_FORCE_WAKEUP;
	}
	return true;
}

static __always_inline void put(struct passage *p, void *e, __u64 len, __u32 type, __u32 flags)
{
	struct cpu_stats *s;
	__u32 cpu;
	long err;

	err = p->ring == RING_CRIT ? bpf_ringbuf_output(&crit, e, bounded(len), p->wake)
				   : bpf_ringbuf_output(&bulk, e, bounded(len), p->wake);
	s = my_stats(&cpu);
	if (!s)
		return;
	if (!err)
		__sync_fetch_and_add(&s->bytes[p->ring & 1], (len + 15) & ~7ULL);
	else if (flags & FL_NOTE)
		__sync_fetch_and_add(&s->notes, 1);
	else
		add_drop(s, type, p->ring, DROP_RING);
}

/* What is in a scratch buffer goes out in two steps, functions of their own and
 * one after the other: the kernel adds up the stacks of those that call each
 * other, and counts no more than 512 bytes. */
static __noinline int enter_held(struct scratch *s, __u32 ring)
{
	return enter((struct event_head *)s->data, s->flags, ring, &s->passage);
}

static __noinline int put_held(struct scratch *s, __u32 fixed)
{
	struct event_head *h = (struct event_head *)s->data;
	__u32 type = h->type;
	__u64 len = s->off, at;

	h->tid ^= h->tgid;
	at = pack(s, (fixed - FRONT) / 4);
	len -= at;
	hide(len);
	if (len >= DATA_BYTES)
		len = DATA_BYTES - 1;
	put(&s->passage, s->data + at, len, type, s->flags);
	return 0;
}

/* send emits the event e that is in a scratch buffer. Its layout is worth
 * nothing afterwards. */
#define send(s, e, ring)                                   \
	do {                                               \
		if (enter_held(s, ring))                   \
			put_held(s, sizeof(*(e)));         \
	} while (0)

/* send_whole emits len bytes of e with all their words. */
static __noinline int send_whole(struct event_head *e, __u32 len, __u32 flags, __u32 ring)
{
	struct passage p;

	if (len < FRONT || len > WHOLE_BYTES || !enter(e, flags, ring, &p))
		return 0;
	e->mask = (2ULL << ((len - FRONT) / 4 & 63)) - 1;
	e->tid ^= e->tgid;
	put(&p, e, len, e->type, flags);
	e->tid ^= e->tgid;
	return 0;
}

/* emit sends an event that is on the stack: packed, or whole when there is no
 * scratch buffer to do it in. */
#define emit(e, flags_, ring)                                      \
	do {                                                       \
		struct scratch *out = take_quietly();              \
		if (out) {                                         \
			__builtin_memcpy(out->data, e, sizeof(*(e))); \
			out->off = sizeof(*(e));                   \
			out->flags = flags_;                       \
			send(out, e, ring);                        \
			give(out);                                 \
		} else {                                           \
			send_whole(&(e)->h, sizeof(*(e)), flags_, ring); \
		}                                                  \
	} while (0)
