// SPDX-License-Identifier: GPL-2.0
/* The guest probe: one object, from which user space loads the programs that
 * this kernel can run. */
#include "lsm.h"
#include "net.h"
#include "process.h"
#include "syscall.h"

char LICENSE[] SEC("license") = "GPL";

/* Keeps the types that Go compares with in the object's BTF. */
const struct event_exec *type_exec;
const struct event_fork *type_fork;
const struct event_exit *type_exit;
const struct event_file *type_file;
const struct event_rename *type_rename;
const struct event_net *type_net;
const enum event_type type_type;
const enum drop_reason type_reason;
const enum event_flag type_flag;
const enum write_how type_how;
