/* SPDX-License-Identifier: GPL-2.0 */
/* Address spaces: memory that may be executed, files that live in memory, and
 * growth. Mappings are told after they were made, with the address they got. */
#pragma once

#include "calls.h"
#include "file.h"

#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_SHARED 1
#define MAP_ANONYMOUS 0x20
#define READ_IMPLIES_EXEC 0x0400000
#define MNT_NOEXEC 4
#define SHM_RDONLY 010000
#define SHM_EXEC 0100000
#define PAGE 4096UL

#define NR_mmap 9
#define NR_mprotect 10
#define NR_brk 12
#define NR_mremap 25
#define NR_memfd_create 319
#define NR_userfaultfd 323
#define NR_pkey_mprotect 329
#define NR_memfd_secret 447

struct map_key {
	__u64 start;
	__u64 image;
	__u64 ino;
	__u32 tgid;
	__u32 dev;
};

/* Files that an image has mapped to execute: libraries are told once for each
 * image. One that is forgotten is told again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct map_key);
	__type(value, __u8);
} mapped_files SEC(".maps");

/* The interpreter that an exec has mapped, until the exec is told. It lies in
 * the new address space, which only the task that makes it can change. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct exit_key);
	__type(value, __u64);
} interpreters SEC(".maps");

struct memory_act {
	__u32 type, kind;
	__u32 protection, before;
	__u64 address, length, flags;
	struct file *file;
	const char *name;
	bool known; /* it has succeeded */
};

static __always_inline bool is_error(unsigned long v)
{
	return v >= (unsigned long)-4095;
}

static __always_inline __u32 memory_ring(__u32 type)
{
	return type == EV_MEMFD ? RING_CRIT : RING_BULK;
}

/* fold_memory counts an act upon memory that has no file to it: by what it is
 * and what may be done with the memory before and after. A memfd goes without
 * its name. */
static __always_inline bool fold_memory(struct bucket *b, struct memory_act *a)
{
	struct sum_key k = of_current(a->type, SUM_HEAD);
	struct event_memory *e;
	void *m = current_sums();
	struct scratch *s;
	bool room;

	k.place = 1; /* another count than weight's */
	if (!m || among_first(&k, WHOLE_ACTS))
		return false;
	k.place = 0;
	k.layout = SUM_MEMORY;
	k.protocol = a->kind;
	k.object = (__u64)a->before << 32 | a->protection;
	if (add_up(m, &k, a->length))
		return note_fold(b, a->type);
	s = take_quietly();
	if (!s)
		return false;
	e = (struct event_memory *)((struct sum *)s->data)->event;
	__builtin_memset(e, 0, sizeof(*e));
	head(&e->h, a->type, (struct task_struct *)bpf_get_current_task());
	e->kind = a->kind;
	e->protection = a->protection;
	e->protection_before = a->before;
	room = enter_sum(s, m, &k, a->length);
	give(s);
	return room && note_fold(b, a->type);
}

static __noinline int tell_memory(struct memory_act *a)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct event_memory *e;
	struct scratch *s;
	struct bucket *b;
	struct inode *i;
	struct file *f;
	__u32 heavy = 0;

	if (!a || left_out(a->type))
		return 0;
	b = over_budget();
	if (b) {
		if ((!a->file || a->type == EV_MEMFD) && fold_memory(b, a))
			return 0;
		heavy = weight(a->type);
	}
	s = take(a->type, memory_ring(a->type));
	if (!s)
		return 0;
	e = (struct event_memory *)s->data;
	__builtin_memset(e, 0, sizeof(*e));
	s->off = sizeof(*e);
	head(&e->h, a->type, t);
	e->kind = a->kind;
	e->address = a->address;
	e->length = a->length;
	e->flags = a->flags;
	e->protection = a->protection;
	e->protection_before = a->before;
	e->total = BPF_CORE_READ(t, mm, total_vm);
	s->flags |= heavy;
	if (a->known)
		s->flags |= FL_RESULT;
	f = a->file;
	if (f) {
		i = BPF_CORE_READ(f, f_inode);
		e->dev = BPF_CORE_READ(i, i_sb, s_dev);
		e->ino = BPF_CORE_READ(i, i_ino);
		e->path_len = walk(s, BPF_CORE_READ(f, f_path.mnt), BPF_CORE_READ(f, f_path.dentry));
		e->outer_len = e->path_len - s->inner;
		note_deleted(s, BPF_CORE_READ(f, f_path.dentry), i);
		e->place_len = walk_place(s);
	}
	if (BPF_CORE_READ(t, thread_info.status) & TS_COMPAT)
		s->flags |= FL_COMPAT;
	send(s, e, memory_ring(a->type));
	give(s);
	return 0;
}

/* first_map says whether this image maps a file to execute for the first time. */
static __always_inline bool first_map(struct task_struct *t, struct file *f)
{
	struct map_key key = {
		.start = BPF_CORE_READ(t, group_leader, start_boottime),
		.image = BPF_CORE_READ(t, self_exec_id),
		.ino = BPF_CORE_READ(f, f_inode, i_ino),
		.tgid = BPF_CORE_READ(t, tgid),
		.dev = BPF_CORE_READ(f, f_inode, i_sb, s_dev),
	};
	__u8 one = 1;

	if (bpf_map_lookup_elem(&mapped_files, &key))
		return false;
	bpf_map_update_elem(&mapped_files, &key, &one, BPF_ANY);
	return true;
}

/* large says whether growth is worth telling. */
static __always_inline bool large(__u64 length)
{
	struct config *c = configuration();

	return c && c->allocate && length >= c->allocate;
}

/* executable says whether a mapping may be executed: some programs ask for
 * that with everything they may read. */
static __always_inline bool executable(struct task_struct *t, struct file *f, unsigned long prot)
{
	if (prot & PROT_EXEC)
		return true;
	if (!(prot & PROT_READ) || !(BPF_CORE_READ(t, personality) & READ_IMPLIES_EXEC))
		return false;
	return !f || !(BPF_CORE_READ(f, f_path.mnt, mnt_flags) & MNT_NOEXEC);
}

static __always_inline void tell_mapping(struct file *f, unsigned long address, unsigned long length, unsigned long prot,
					 unsigned long flags)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct memory_act a = { .kind = MEM_MMAP, .address = address, .length = length, .flags = flags, .known = true };
	struct exit_key key = {};
	__u64 address_of;

	if (flags & MAP_ANONYMOUS)
		f = 0; /* huge pages have a file of their own */
	a.protection = prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
	if (executable(t, f, prot)) {
		a.protection |= PROT_EXEC;
		a.type = EV_MAP;
		a.file = f;
		if (f && BPF_CORE_READ_BITFIELD_PROBED(t, in_execve)) {
			/* The new image is told by exec, which comes after
			 * this: its interpreter then, see on_interpreter. */
			if (BPF_CORE_READ(f, f_inode) == BPF_CORE_READ(t, mm, exe_file, f_inode))
				return;
			key.start = BPF_CORE_READ(t, group_leader, start_boottime);
			key.tgid = BPF_CORE_READ(t, tgid);
			address_of = (__u64)f;
			bpf_map_update_elem(&interpreters, &key, &address_of, BPF_ANY);
			return;
		}
		if (!f || first_map(t, f))
			tell_memory(&a);
	}
	if (!f && large(length)) {
		a.type = EV_ALLOCATE;
		a.file = 0;
		tell_memory(&a);
	}
}

SEC("fexit/vm_mmap_pgoff")
int BPF_PROG(on_mmap, struct file *f, unsigned long addr, unsigned long len, unsigned long prot, unsigned long flags,
	     unsigned long pgoff, unsigned long ret)
{
	if (is_error(ret))
		return 0;
	if (!(prot & (PROT_READ | PROT_EXEC)) && f)
		return 0;
	tell_mapping(f, ret, len, prot, flags);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_interpreter, struct task_struct *t, int old_pid, struct linux_binprm *bprm)
{
	struct memory_act a = { .type = EV_MAP, .kind = MEM_MMAP, .protection = PROT_READ | PROT_EXEC, .known = true };
	struct exit_key key = { .start = BPF_CORE_READ(t, group_leader, start_boottime), .tgid = BPF_CORE_READ(t, tgid) };
	__u64 *f = bpf_map_lookup_elem(&interpreters, &key);

	if (!f)
		return 0;
	a.file = (struct file *)*f;
	bpf_map_delete_elem(&interpreters, &key);
	if (first_map(t, a.file))
		tell_memory(&a);
	return 0;
}

SEC("fexit/do_shmat")
int BPF_PROG(on_shmat, int id, char *address, int flags, unsigned long *where, unsigned long align, long ret)
{
	struct memory_act a = { .type = EV_MAP, .kind = MEM_SHM, .protection = PROT_READ | PROT_EXEC, .known = true };

	if (ret || !(flags & SHM_EXEC))
		return 0;
	if (!(flags & SHM_RDONLY))
		a.protection |= PROT_WRITE;
	a.flags = MAP_SHARED;
#ifndef OLD /* takes no pointer to a number */
	bpf_probe_read_kernel(&a.address, sizeof(a.address), where);
#endif
	tell_memory(&a);
	return 0;
}

static __always_inline void tell_protect(struct memory_act *a)
{
	a->type = EV_PROTECT;
	a->kind = MEM_PROTECT;
	if (!(a->protection & PROT_EXEC))
		return;
	/* New is the right to execute, or that to write what is executed. */
	if ((a->before & PROT_EXEC) && !(a->protection & ~a->before & PROT_WRITE))
		return;
	tell_memory(a);
}

/* The hook is called for each mapping that a call touches. */
SEC("lsm/file_mprotect")
int BPF_PROG(on_mprotect, struct vm_area_struct *vma, unsigned long asked, unsigned long prot, int ret)
{
	struct memory_act a = {};
	struct called x;
	unsigned long end, last;

	if (ret || !(prot & PROT_EXEC))
		return 0;
	a.protection = prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
	a.before = BPF_CORE_READ(vma, vm_flags) & (PROT_READ | PROT_WRITE | PROT_EXEC);
	a.address = BPF_CORE_READ(vma, vm_start);
	end = BPF_CORE_READ(vma, vm_end);
	called(&x);
	if (x.number == NR_mprotect || x.number == NR_pkey_mprotect) {
		last = x.a + ((x.b + PAGE - 1) & ~(PAGE - 1));
		if (x.a > a.address && x.a < end)
			a.address = x.a;
		if (last < end && last > a.address)
			end = last;
	}
	a.length = end - a.address;
	a.file = BPF_CORE_READ(vma, vm_file);
	tell_protect(&a);
	return 0;
}

/* memfd_create has no hook of its own; what it makes is made here, under a
 * name that nothing else gives. */
static __always_inline void tell_memfd(const char *name, struct file *f)
{
	struct memory_act a = { .type = EV_MEMFD, .kind = MEM_MEMFD, .known = true };
	struct called x;
	char prefix[8] = {};

	if (is_error((unsigned long)f))
		return;
	bpf_probe_read_kernel(prefix, 6, name);
	if (prefix[0] != 'm' || prefix[1] != 'e' || prefix[2] != 'm' || prefix[3] != 'f' || prefix[4] != 'd' || prefix[5] != ':')
		return;
	called(&x);
	if (x.number == NR_memfd_create)
		a.flags = x.b & 0xffffffff;
	a.file = f;
	tell_memory(&a);
}

SEC("fexit/shmem_file_setup")
int BPF_PROG(on_shmem, const char *name, long long size, unsigned long flags, struct file *f)
{
	tell_memfd(name, f);
	return 0;
}

SEC("fexit/hugetlb_file_setup")
int BPF_PROG(on_hugetlb, const char *name, unsigned long size, unsigned long flags, int how, int shift, struct file *f)
{
	tell_memfd(name, f);
	return 0;
}

/* Until 5.13 with an argument more. */
SEC("fexit/hugetlb_file_setup")
int BPF_PROG(on_hugetlb_old, const char *name, unsigned long size, unsigned long flags, void *user, int how, int shift,
	     struct file *f)
{
	tell_memfd(name, f);
	return 0;
}

static __always_inline void tell_heap(unsigned long wanted_end)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	unsigned long end = (BPF_CORE_READ(t, mm, brk) + PAGE - 1) & ~(PAGE - 1);
	struct memory_act a = { .type = EV_ALLOCATE, .kind = MEM_BRK, .protection = PROT_READ | PROT_WRITE };

	wanted_end = (wanted_end + PAGE - 1) & ~(PAGE - 1);
	if (wanted_end <= end || !large(wanted_end - end))
		return;
	a.address = end;
	a.length = wanted_end - end;
	tell_memory(&a);
}

SEC("fentry/__x64_sys_brk")
int BPF_PROG(on_brk, struct pt_regs *regs)
{
	tell_heap(BPF_CORE_READ(regs, di));
	return 0;
}

SEC("fentry/__ia32_sys_brk")
int BPF_PROG(on_brk_compat, struct pt_regs *regs)
{
	tell_heap(BPF_CORE_READ(regs, bx) & 0xffffffff);
	return 0;
}

static __always_inline void tell_remap(unsigned long from, unsigned long old, unsigned long new, unsigned long flags,
				       unsigned long to)
{
	struct memory_act a = { .type = EV_ALLOCATE, .kind = MEM_REMAP };

	if (is_error(to) || new <= old || !large(new - old))
		return;
	a.known = to != 0;
	a.address = to ?: from;
	a.length = new - old;
	a.flags = flags;
	tell_memory(&a);
}

SEC("fexit/__do_sys_mremap")
int BPF_PROG(on_mremap, unsigned long from, unsigned long old, unsigned long new, unsigned long flags, unsigned long at,
	     unsigned long ret)
{
	tell_remap(from, old, new, flags, ret);
	return 0;
}

/* Where the function before is not there by itself. */
SEC("fexit/__x64_sys_mremap")
int BPF_PROG(on_mremap_call, void *unknown, unsigned long ret)
{
	struct pt_regs *regs = registers();

	tell_remap(BPF_CORE_READ(regs, di), BPF_CORE_READ(regs, si), BPF_CORE_READ(regs, dx), BPF_CORE_READ(regs, r10), ret);
	return 0;
}

/* Where neither can be attached to: memory that a growing mapping is charged
 * for, before it grows. */
SEC("fentry/security_vm_enough_memory_mm")
int BPF_PROG(on_charged, struct mm_struct *mm, long pages)
{
	struct memory_act a = { .type = EV_ALLOCATE, .kind = MEM_REMAP };
	struct called x;

	if (pages <= 0 || !large((__u64)pages * PAGE))
		return 0;
	called(&x);
	if (x.number != NR_mremap)
		return 0;
	a.address = x.a;
	a.length = (__u64)pages * PAGE;
	a.flags = x.d;
	tell_memory(&a);
	return 0;
}
