/* SPDX-License-Identifier: GPL-2.0 */
/* Events as they stand in a ring: without the words of their fixed part that are
 * zero, which most are of most. Nothing is left to be known from elsewhere, so
 * that no other event's loss can make one unreadable. */
#pragma once

#define MAX_WORDS 56
_Static_assert(sizeof(struct event_exec) <= FRONT + 4 * MAX_WORDS, "longest layout");
_Static_assert(sizeof(struct event_creds) <= FRONT + 4 * MAX_WORDS, "longest layout");
#define WHOLE_BYTES (FRONT + 4 * MAX_WORDS)

/* hide keeps the compiler from making branches or pointers of what is computed:
 * either would be more than the verifier follows. */
#define hide(x) asm volatile("" : "+r"(x))

/* One word, from the last to the first: it moves up to those behind it, the
 * lowest of which stands at at, and stays there unless it is zero. */
#define pack_word(i)                                               \
	do {                                                       \
		__u64 w = *(__u32 *)(s->data + FRONT + 4 * (i)), n; \
		*(__u32 *)(s->data + at - 4) = w;                  \
		n = -w;                                            \
		hide(n);                                           \
		n >>= 63;                                          \
		hide(n);                                           \
		mask = mask << 1 | n;                              \
		at -= n << 2;                                      \
		hide(at);                                          \
	} while (0)

#define pack_two(i)                                                \
	do {                                                       \
		if (words > (i)) {                                 \
			pack_word((i) + 1);                        \
			pack_word(i);                              \
		}                                                  \
	} while (0)

#define pack_eight(i)            \
	do {                     \
		pack_two((i) + 6); \
		pack_two((i) + 4); \
		pack_two((i) + 2); \
		pack_two(i);     \
	} while (0)

/* pack takes the zeros out of the fixed part of the event in s, an even number
 * of words behind its front, and returns where it begins now. */
static __always_inline __u64 pack(struct scratch *s, __u32 words)
{
	struct event_head *h = (struct event_head *)s->data;
	__u64 at = FRONT + 4 * words, mask = 1, time, place;

	hide(at);
	pack_eight(48);
	pack_eight(40);
	pack_eight(32);
	pack_eight(24);
	pack_eight(16);
	pack_eight(8);
	pack_eight(0);
	at -= FRONT;
	hide(at);
	time = h->time;
	place = *(__u64 *)&h->type;
	*(__u64 *)(s->data + at) = mask;
	*(__u64 *)(s->data + at + 8) = time;
	*(__u64 *)(s->data + at + 16) = place;
	return at;
}

/* pack_task leaves of a process what differs from the head's. For most that is
 * little: new ones have much of their maker, and most have one identity. */
static __always_inline void pack_task(struct event_task *t, struct event_head *h)
{
	t->fsuid ^= t->euid;
	t->fsgid ^= t->egid;
	t->suid ^= t->euid;
	t->sgid ^= t->egid;
	t->egid ^= t->gid;
	t->gid ^= t->uid;
	t->uid ^= t->euid;
	t->euid ^= h->euid;
	t->start ^= h->start;
	t->parent_start ^= h->start;
	t->tgid ^= h->tgid;
	t->ppid ^= h->tgid;
	t->mntns ^= h->mntns;
	t->loginuid = ~t->loginuid; /* without one they are all ones */
	t->sessionid = ~t->sessionid;
}
