/* SPDX-License-Identifier: GPL-2.0 */
/* The few kernel types the programs read, by hand. Only names count: every
 * access is relocated against the BTF of the running kernel, so layout and
 * order mean nothing here and there is no vmlinux.h to keep up with. A field
 * that not every kernel has is asked for with bpf_core_field_exists. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct path;
struct mount;
struct file;

struct qstr {
	const unsigned char *name;
};

struct list_head {
	struct list_head *next, *prev;
};

struct file_system_type {
	const char *name;
};

struct hlist_node;

struct hlist_head {
	struct hlist_node *first;
};

struct pid {
	unsigned int level;
	struct hlist_head tasks[1];
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
	struct user_namespace *s_user_ns;
	struct file_system_type *s_type;
	struct list_head s_mounts;
};

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

struct inode {
	__u16 i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;
	void *i_private;
	unsigned int i_nlink;
	__u32 i_rdev;
	long long i_size;
};

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};

/* The times of an inode have changed their names twice. */
struct inode___until_6_5 {
	struct timespec64 i_atime;
	struct timespec64 i_mtime;
	struct timespec64 i_ctime;
};

struct inode___until_6_10 {
	struct timespec64 __i_atime;
	struct timespec64 __i_mtime;
	struct timespec64 __i_ctime;
};

struct inode___now {
	__s64 i_atime_sec;
	__u32 i_atime_nsec;
	__s64 i_mtime_sec;
	__s64 i_ctime_sec;
	__u32 i_mtime_nsec;
	__u32 i_ctime_nsec;
};

/* What notify_change is to change, and vfs_fileattr_set. */
struct iattr {
	unsigned int ia_valid;
	long long ia_size;
	struct timespec64 ia_atime;
	struct timespec64 ia_mtime;
	struct file *ia_file;
};

struct fileattr {
	__u32 flags;
};

struct posix_acl {
	unsigned int a_count;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
	int mnt_flags;
};

/* Which of them a kernel has tells whether functions that change a file are
 * given a mapping of ids first: since 5.12, renamed in 6.2. */
struct vfsmount___users {
	void *mnt_userns;
};

struct vfsmount___idmap {
	void *mnt_idmap;
};

struct mnt_namespace;

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct list_head mnt_mounts;
	struct list_head mnt_child;
	struct list_head mnt_instance;
	const char *mnt_devname;
	struct mnt_namespace *mnt_ns; /* null: in no tree */
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
};

/* What overlayfs opens below an open file, since 6.8: both places. */
struct backing_file {
	struct path user_path;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct fs_context {
	struct dentry *root;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	unsigned long brk;
	unsigned long total_vm; /* pages */
	struct file *exe_file;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	struct file *vm_file;
};

/* One 64-bit word since 6.3, two 32-bit words before: the same bytes. */
typedef struct {
	__u32 cap[2];
} kernel_cap_t;

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t suid;
	kgid_t sgid;
	kuid_t euid;
	kgid_t egid;
	kuid_t fsuid;
	kgid_t fsgid;
	kernel_cap_t cap_inheritable;
	kernel_cap_t cap_permitted;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
	struct group_info *group_info;
};

struct ns_common {
	unsigned int inum;
	__u64 ns_id; /* since 6.18 */
};

struct user_namespace {
	struct ns_common ns;
	int level; /* 0: the initial one */
};

struct mnt_namespace {
	struct ns_common ns;
	__u64 seq; /* 0: of mounts that are attached nowhere yet */
};

struct uts_namespace {
	struct ns_common ns;
};

struct ipc_namespace {
	struct ns_common ns;
};

struct pid_namespace {
	struct ns_common ns;
};

struct net {
	struct ns_common ns;
};

struct time_namespace {
	struct ns_common ns;
};

struct cgroup_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct mnt_namespace *mnt_ns;
	struct pid_namespace *pid_ns_for_children;
	struct net *net_ns;
	struct time_namespace *time_ns_for_children;
	struct cgroup_namespace *cgroup_ns;
};

struct signal_struct {
	atomic_t live;
	int nr_threads;
	int group_exit_code;
	unsigned int flags;
	unsigned long maxrss; /* pages */
};

struct kernfs_node {
	__u64 id;
};

struct cgroup_root {
	int hierarchy_id; /* 0: the one of cgroup v2 */
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct thread_info {
	__u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int flags;
	int pid;
	int tgid;
	int exit_code;
	void *stack;
	unsigned int personality;
	unsigned in_execve : 1;
	__u64 self_exec_id; /* grows with each image */
	struct pid *thread_pid;
	struct {
		struct hlist_node *next;
	} pid_links[1];
	__u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	const struct cred *cred;
	char comm[16];
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
	kuid_t loginuid;
	unsigned int sessionid;
};

struct linux_binprm {
	struct file *file;
	struct cred *cred;
	const char *filename;
	const char *interp;
	int argc;
};

struct in6_addr_k {
	__u8 b[16];
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	unsigned short skc_family;
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	possible_net_t skc_net;
	struct in6_addr_k skc_v6_daddr;
	struct in6_addr_k skc_v6_rcv_saddr;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	struct socket *sk_socket;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct tcp_fastopen_request;

struct tcp_sock {
	struct tcp_fastopen_request *fastopen_req;
	__u8 fastopen_connect : 1;
};

struct msghdr {
	void *msg_name;
	int msg_namelen;
};

struct pt_regs {
	unsigned long bp;
	unsigned long bx;
	unsigned long cx;
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long r10;
	unsigned long r8;
	unsigned long orig_ax;
	unsigned long cs;
};

/* A request of io_uring. */
struct io_cqe {
	int fd;
};

struct io_kiocb {
	struct file *file;
	__u8 opcode;
	unsigned int flags;
	struct io_cqe cqe;
};

struct kernel_siginfo {
	int si_code;
};

struct sk_buff {
	unsigned char *data;
	unsigned int len;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFLNK 0120000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define S_IFIFO 0010000

#define PF_KTHREAD 0x00200000
#define PF_IO_WORKER 0x10
#define FMODE_WRITE 2
#define FMODE_CREATED 0x100000
#define FMODE_NOACCOUNT 0x20000000
#define O_TMPFILE_BIT 020000000
#define MAY_WRITE 2
#define SIGNAL_GROUP_EXIT 4
#define TS_COMPAT 2
#define THREAD_SIZE 16384

/* Of file systems (linux/magic.h has most of them). */
#define ANON_INODE_FS_MAGIC 0x09041934
#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6
#define PROC_SUPER_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270
#define DEBUGFS_MAGIC 0x64626720
#define TRACEFS_MAGIC 0x74726163
#define SECURITYFS_MAGIC 0x73636673
#define SELINUX_MAGIC 0xf97cff8c
#define CONFIGFS_MAGIC 0x62656570
#define BINFMTFS_MAGIC 0x42494e4d

#define ATTR_MODE 1
#define ATTR_UID 2
#define ATTR_GID 4
#define ATTR_SIZE 8
#define ATTR_ATIME 16
#define ATTR_MTIME 32
#define ATTR_FILE 8192

#define O_TRUNC_BIT 01000
#define MAP_ANONYMOUS_BIT 0x20
#define MAP_SHARED_BIT 1 /* of MAP_SHARED and MAP_SHARED_VALIDATE */
#define PROT_WRITE 2
#define VM_WRITE 2
#define VM_SHARED 8

#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_MOVE 8192
#define MS_PROPAGATION (1 << 17 | 1 << 18 | 1 << 19 | 1 << 20)
#define MS_MGC_VAL 0xC0ED0000
#define MS_MGC_MSK 0xffff0000

#define FS_IOC_SETFLAGS 0x40086602
#define FS_IOC32_SETFLAGS 0x40046602
#define FS_IOC_FSSETXATTR 0x401c5820

#define CAP_AUDIT_WRITE 29
#define NETLINK_AUDIT 9

#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_VSOCK 40
#define AF_ALG 38
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOCK_PACKET 10
#define SOCK_TYPE_MASK 15
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define TCP_SYN_SENT 2
#define O_NONBLOCK 04000
#define EINPROGRESS 115

#define EEXIST 17
#define AT_REMOVEDIR 0x200
#define RENAME_EXCHANGE 2
