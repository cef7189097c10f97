/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's types of modules, BPF and performance events. */
#pragma once

#include "kernel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* A module's memory is in one place until 6.4, in several from there on. */
struct module_layout {
	unsigned int size;
};

struct module_memory {
	unsigned int size;
};

struct module {
	char name[56];
	unsigned long taints;
	_Bool sig_ok; /* only where the kernel checks signatures */
	struct module_memory mem[7];
};

struct module___until_6_4 {
	struct module_layout core_layout;
	struct module_layout init_layout;
};

struct load_info {
	unsigned long len;
};

enum kernel_read_file_id {
	READING_MODULE = 2,
	READING_KEXEC_IMAGE = 3,
	READING_KEXEC_INITRAMFS = 4,
};

enum kernel_load_data_id {
	LOADING_KEXEC_IMAGE = 3,
};

struct bpf_prog;

struct bpf_prog_aux {
	__u32 id;
	struct bpf_prog *prog;
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct bpf_link {
	__u32 id;
};

struct wide_counter {
	__s64 counter;
};

struct bpf_map {
	__u32 id;
	struct wide_counter refcnt, usercnt;
};

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
};

struct sock_fprog_kern {
	__u16 len;
};

struct perf_event_attr {
	__u32 type;
	__u64 config;
};

struct perf_event {
	struct perf_event *parent;
	struct perf_event_attr attr;
};

#pragma clang attribute pop
