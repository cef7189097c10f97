/* SPDX-License-Identifier: GPL-2.0 */
/* What a process does beyond its budget. Acts of the kinds that programs do by
 * the ten thousand are told as sums: the first upon each object whole, the rest
 * counted; an act for which there is no room among the sums is told like any
 * other. Acts of all other kinds are told one by one for ever, since each may be
 * what a storm is to hide, but give way to those of other processes where the
 * ring fills (FL_HEAVY): the storm is dropped, and counted, before anybody
 * else's. */
#pragma once

#include "sum.h"

/* Kinds that are told as sums. A change of name, rights or times may be all
 * there is to an attack, and its sum would not say where it went. */
#define FOLDED_TYPES \
	(BIT(EV_CREATE) | BIT(EV_WRITE) | BIT(EV_CLOSE) | BIT(EV_UNLINK) | BIT(EV_CONNECT) | BIT(EV_ACCEPT) | \
	 BIT(EV_SEND) | BIT(EV_MAP) | BIT(EV_PROTECT) | BIT(EV_MEMFD) | BIT(EV_ALLOCATE))

/* How many acts of a kind in a directory, or upon memory, are told whole. */
#define WHOLE_ACTS 256
/* fold says so of an act that went into a sum: there is nothing to tell. Else
 * it gives flags for the event. */
#define FOLDED (1U << 31)

/* How many acts upon an object were told whole beyond a budget. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct sum_key);
	__type(value, __u32);
} folding SEC(".maps");

/* A number is given anew when its file is gone: the generation tells them apart. */
struct inode_key {
	__u64 ino;
	__u32 dev;
	__u32 generation;
};

/* Files that were made by processes beyond their budget. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct inode_key);
	__type(value, __u8);
} born SEC(".maps");

static __always_inline void tell_aggregate(struct bucket *b, __u32 over)
{
	struct event_aggregate e = {};

	head(&e.h, EV_AGGREGATE, (struct task_struct *)bpf_get_current_task());
	e.h.arg = over;
	e.count = b->folded;
	emit(&e, 0, RING_CRIT);
}

/* over_budget books an act of the current process and says whether it goes
 * beyond what the process may do. Processors that book at the same time may
 * lose an act or two from the books: the budget is no exact number, what is
 * told of acts is. */
static __always_inline struct bucket *over_budget(void)
{
	struct config *c = configuration();
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct exit_key k = {};
	struct bucket *b, fresh = {};
	__u64 now, cost, full;

	if (!c || !c->budget)
		return 0;
	cost = SECOND / c->budget;
	now = bpf_ktime_get_boot_ns();
	k.start = BPF_CORE_READ(t, group_leader, start_boottime);
	k.tgid = BPF_CORE_READ(t, tgid);
	b = bpf_map_lookup_elem(&buckets, &k);
	if (!b) {
		fresh.full = now + cost;
		bpf_map_update_elem(&buckets, &k, &fresh, BPF_ANY);
		return 0;
	}
	full = b->full > now ? b->full : now;
	if (full + cost <= now + BURST_NS)
		full += cost;
	b->full = full;
	if (!b->over) {
		if (full + cost <= now + BURST_NS)
			return 0;
		b->over = 1;
		b->folded = 0;
		tell_aggregate(b, 1);
	} else if (full < now + RELIEF_NS) {
		b->over = 0;
		tell_aggregate(b, 0);
		return 0;
	}
	return b;
}

/* among_first says whether an act upon an object is one of the first n: those
 * are told whole. Processors that count at the same time may tell one more. */
static __always_inline bool among_first(struct sum_key *k, __u32 n)
{
	__u32 *count = bpf_map_lookup_elem(&folding, k), one = 1;

	if (!count) {
		if (insert(&folding, k, &one) != -EEXIST)
			return true;
		count = bpf_map_lookup_elem(&folding, k);
		if (!count)
			return true;
	}
	if (*count >= n)
		return false;
	__sync_fetch_and_add(count, 1);
	return true;
}

/* of_current is the key of all acts of a kind by this process. */
static __always_inline struct sum_key of_current(__u32 type, __u32 layout)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct sum_key k = { .type = type, .layout = layout };

	k.start = BPF_CORE_READ(t, group_leader, start_boottime);
	k.tgid = BPF_CORE_READ(t, tgid);
	return k;
}

/* weight gives the flags of an act that is not folded. */
static __always_inline __u32 weight(__u32 type)
{
	struct sum_key k = of_current(type, SUM_HEAD);

	return among_first(&k, LIGHT_ACTS) ? 0 : FL_HEAVY;
}

static __always_inline bool note_fold(struct bucket *b, __u32 type)
{
	__sync_fetch_and_add(&b->folded, 1);
	count_folded(type);
	return true;
}

/* fold_fixed folds an event that has its whole size: e, and what it is about
 * in k. */
static __always_inline bool fold_fixed(struct bucket *b, struct sum_key *k, void *e, __u32 len, __u64 bytes)
{
	void *m = current_sums();
	struct scratch *s;
	bool room;

	if (!m || among_first(k, 1))
		return false;
	if (add_up(m, k, bytes))
		return note_fold(b, k->type);
	s = take_quietly();
	if (!s)
		return false;
	__builtin_memcpy(((struct sum *)s->data)->event, e, len);
	room = enter_sum(s, m, k, bytes);
	give(s);
	return room && note_fold(b, k->type);
}

#define FOLD_PATH_BYTES (SUM_EVENT_BYTES - sizeof(struct event_file))

static __always_inline bool new_file_sum(struct scratch *s, void *m, struct sum_key *k, struct vfsmount *vfs,
					 struct dentry *dir, __u64 bytes, __u32 flags)
{
	struct event_file *e = (struct event_file *)((struct sum *)s->data)->event;
	__u32 n;

	__builtin_memset(e, 0, sizeof(*e));
	head(&e->h, k->type, (struct task_struct *)bpf_get_current_task());
	e->ino = k->object;
	e->dev = k->place;
	e->mode = BPF_CORE_READ(dir, d_inode, i_mode);
	s->off = offsetof(struct sum, event) + sizeof(*e);
	s->flags |= flags;
	n = walk(s, vfs, dir);
	if (n > FOLD_PATH_BYTES) {
		n = FOLD_PATH_BYTES;
		s->flags |= FL_PATH_TRUNC;
	}
	e->path_len = n;
	return enter_sum(s, m, k, bytes);
}

/* stranger says whether a file is not of the process's own making and is acted
 * upon in this way for the first time: whoever makes a storm of files to hide
 * one act upon another's has that act told. */
static __always_inline bool stranger(__u32 type, struct inode *i)
{
	struct inode_key of = {};
	struct sum_key k;
	__u8 one = 1;

	if (!i)
		return false;
	of.ino = BPF_CORE_READ(i, i_ino);
	of.dev = BPF_CORE_READ(i, i_sb, s_dev);
	of.generation = BPF_CORE_READ(i, i_generation);
	if (type == EV_CREATE) {
		bpf_map_update_elem(&born, &of, &one, BPF_ANY);
		return false;
	}
	if (bpf_map_lookup_elem(&born, &of))
		return false;
	k = of_current(type, SUM_HEAD);
	k.object = of.ino;
	k.place = of.dev;
	return among_first(&k, 1);
}

/* fold_file folds an act upon a file in a directory of a mount. */
static __always_inline bool fold_file(struct bucket *b, __u32 type, struct vfsmount *vfs, struct dentry *dir, __u64 bytes,
				      __u32 flags)
{
	struct sum_key k = of_current(type, SUM_FILE);
	void *m = current_sums();
	struct scratch *s;
	bool room;

	if (!m)
		return false;
	k.object = BPF_CORE_READ(dir, d_inode, i_ino);
	k.place = BPF_CORE_READ(dir, d_inode, i_sb, s_dev);
	if (among_first(&k, WHOLE_ACTS))
		return false;
	if (add_up(m, &k, bytes))
		return note_fold(b, type);
	s = take_quietly();
	if (!s)
		return false;
	room = new_file_sum(s, m, &k, vfs, dir, bytes, flags);
	give(s);
	return room && note_fold(b, type);
}
