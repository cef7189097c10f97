// SPDX-License-Identifier: GPL-2.0
/* The guest probe: one object, from which user space loads the programs that
 * this kernel can run. With OLD defined it is the object for kernels before
 * 5.12 (see maps.h). */
#include "attr.h"
#include "auth.h"
#include "cgroup.h"
#include "creds.h"
#include "control.h"
#include "guard.h"
#include "lsm.h"
#include "mount.h"
#include "net_call.h"
#include "net_cgroup.h"
#include "net_lsm.h"
#include "memory_calls.h"
#include "process.h"
#include "syscall.h"
#include "trace.h"

char LICENSE[] SEC("license") = "GPL";

/* Keeps the types that Go compares with in the object's BTF. */
const struct event_exec *type_exec;
const struct event_fork *type_fork;
const struct event_exit *type_exit;
const struct event_creds *type_creds;
const struct event_comm *type_comm;
const struct event_namespace *type_namespace;
const struct event_target *type_target;
const struct event_cgroup *type_cgroup;
const struct event_file *type_file;
const struct event_close *type_close;
const struct file_times *type_times;
const struct event_rename *type_rename;
const struct event_mount *type_mount;
const struct event_net *type_net;
const struct event_unix *type_unix;
const struct event_dns *type_dns;
const struct event_memory *type_memory;
const struct event_kernel *type_kernel;
const struct event_auth *type_auth;
const struct event_tamper *type_tamper;
const struct event_aggregate *type_aggregate;
const struct sum_key *type_sum_key;
const struct sum *type_sum;
const enum sum_layout type_sum_layout;
const enum event_type type_type;
const enum drop_reason type_reason;
const enum event_flag type_flag;
const enum optional type_optional;
const enum gained type_gained;
const enum trace_how type_trace_how;
const enum write_how type_how;
const enum mount_operation type_operation;
const enum mount_api type_api;
const enum net_bits type_net_bits;
const enum memory_kind type_memory_kind;
const enum kernel_operation type_kernel_operation;
const enum module_signature type_module_signature;
const enum tamper_kind type_tamper_kind;
const enum owned type_owned;
const struct owned_key *type_owned_key;
const struct switches *type_switches;
const struct held *type_held;
const enum starve type_starve;
