/* SPDX-License-Identifier: GPL-2.0 */
/* Events about address spaces. Strings: path or name. */
#pragma once

#include "event.h"

struct event_memory {
	struct event_head h;
	__u64 address;
	__u64 length;
	__u64 flags;
	__u64 total; /* pages of the address space */
	__u64 ino;
	__u32 dev;
	__u32 protection, protection_before;
	__u32 kind; /* enum memory_kind */
	__u16 path_len;
	__u16 outer_len;
	__u16 place_len;
	__u16 pad;
};

enum memory_kind {
	MEM_MAP = 1,
	MEM_PROTECT,
	MEM_MEMFD,
	MEM_MMAP,
	MEM_BRK,
	MEM_REMAP,
	MEM_SHM,
	MEM_SECRET,
};
