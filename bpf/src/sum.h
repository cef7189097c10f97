/* SPDX-License-Identifier: GPL-2.0 */
/* Acts that are told as sums: datagrams after the first to a destination, and
 * what a process does beyond its budget. The agent takes the map of sums away
 * from time to time, puts an empty one in its place and waits for the programs
 * that still use the old one: so no act is in none of them, or in both. */
#pragma once

#include "path.h"

/* So many datagrams' destinations have sums of their own; the rest of the room
 * is for other acts, and for one sum of each process that has more. */
#define DESTINATIONS 3072

struct sum_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct sum_key);
	__type(value, struct sum);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct sum_map);
} sums SEC(".maps");

/* What has been told once as an event of its own. An entry that is pushed out
 * makes another such event. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct sum_key);
	__type(value, __u8);
} told SEC(".maps");

static __always_inline void *current_sums(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sums, &zero);
}

/* first_time says whether a key is new. */
static __always_inline bool first_time(struct sum_key *k)
{
	__u8 one = 1;

	if (bpf_map_lookup_elem(&told, k))
		return false;
	return insert(&told, k, &one) != -EEXIST;
}

static __always_inline bool add_up(void *m, struct sum_key *k, __u64 bytes)
{
	struct sum *v = bpf_map_lookup_elem(m, k);

	if (!v)
		return false;
	__sync_fetch_and_add(&v->count, 1);
	if (bytes) /* of a plain zero the compiler makes an operation that 5.10 has not */
		__sync_fetch_and_add(&v->bytes, bytes);
	v->last = bpf_ktime_get_boot_ns();
	return true;
}

/* enter_sum puts the sum that stands in a scratch buffer into the map: one act,
 * which another program may have entered meanwhile. No room: false. */
static __always_inline bool enter_sum(struct scratch *s, void *m, struct sum_key *k, __u64 bytes)
{
	struct sum *v = (struct sum *)s->data;
	int err;

	v->count = 1;
	v->bytes = bytes;
	v->first = bpf_ktime_get_boot_ns();
	v->last = v->first;
	v->flags = s->flags;
	err = insert(m, k, v);
	if (err == -EEXIST)
		return add_up(m, k, bytes);
	return err == 0;
}

/* room_for_destination books one more destination of datagrams and says whether
 * it may have a sum of its own. */
static __always_inline bool room_for_destination(void *m)
{
	struct sum_key k = { .layout = SUM_ENTRIES };
	struct sum *v = bpf_map_lookup_elem(m, &k);
	struct scratch *s;
	bool room;

	if (!v) {
		s = take_quietly();
		if (!s)
			return false;
		room = enter_sum(s, m, &k, 0);
		give(s);
		return room;
	}
	if (v->count >= DESTINATIONS)
		return false;
	__sync_fetch_and_add(&v->count, 1);
	return true;
}
