/* SPDX-License-Identifier: GPL-2.0 */
/* Events about files. */
#pragma once

#include "event.h"

/* One file; strings: path (leaf first), name, extra, place. */
struct event_file {
	struct event_head h;
	__u64 ino;
	__u64 size;
	__u64 arg2; /* write, truncate: size before; xattr: length of the value */
	__u32 dev;
	__u32 mode;
	__u32 uid, gid;
	__u32 arg; /* chmod: mode before; write: how; xattr: 1 when removed; attributes: the flags */
	__u32 rdev; /* of a device node */
	__u32 links;
	__u16 path_len;
	__u16 name_len; /* with FL_USER_PATH the name */
	__u16 extra_len; /* name of an attribute, what a symbolic link holds, or struct file_times */
	__u16 place_len; /* where the mount's root lies in its file system; 0: at its root */
	__u16 outer_len; /* how much of path, at its end, lies outside the mount */
	__u16 pad;
};

/* What a file's times were set to, Unix nanoseconds. */
struct file_times {
	__s64 atime, mtime, ctime;
};

/* The last close of a description that was written through; strings: path, place. */
struct event_close {
	struct event_head h;
	__u64 ino;
	__u64 size0, size1;
	__s64 ctime0, ctime1;
	__s64 mtime; /* in a ring: ^ ctime1 */
	__u64 ops;
	__u64 bytes; /* in a ring: ^ size1 */
	__u32 dev;
	__u32 mode;
	__u32 uid, gid;
	__u32 hows; /* bits of enum write_how */
	__u32 links;
	__u16 path_len;
	__u16 place_len;
	__u16 outer_len;
	__u16 pad;
	__u32 magic, doubt; /* struct origin */
};

/* Two paths; strings: old, new. With FL_USER_PATH: old directory, old name,
 * new directory, new name. */
struct event_rename {
	struct event_head h;
	__u64 ino;
	__u64 size;
	__u64 replaced_ino; /* 0: the new name was free */
	__u32 dev;
	__u32 mode;
	__u32 replaced_mode;
	__u32 uid, gid;
	__u32 flags; /* of renameat2 */
	__u32 links;
	__u16 old_len, new_len;
	__u16 old_name_len, new_name_len;
	__u16 old_outer, new_outer;
	__u16 place_len;
	__u16 pad[3];
};

/* Strings: place it is at (path, leaf first), name, source as passed, type, path
 * of the source (leaf first), its name. With FL_USER_PATH path and from are the
 * directories that the names start at. */
struct event_mount {
	struct event_head h;
	__u64 flags;
	__u64 ino;
	__u32 dev;
	__u32 mode;
	__u32 operation; /* enum mount_operation */
	__u32 api; /* enum mount_api */
	__u16 path_len, name_len, source_len, type_len, from_len, from_name_len;
	__u32 pad;
};

enum mount_operation {
	MOUNT_NEW = 1,
	MOUNT_BIND,
	MOUNT_REMOUNT,
	MOUNT_MOVE,
	MOUNT_PROPAGATION,
	MOUNT_UNMOUNT,
	MOUNT_PIVOT,
	MOUNT_SETATTR,
};

enum mount_api {
	API_MOUNT = 1,
	API_MOVE_MOUNT,
	API_FSCONFIG,
	API_MOUNT_SETATTR,
};

enum write_how {
	HOW_WRITE = 0,
	HOW_COPY = 1,
	HOW_FALLOCATE = 2,
	HOW_MMAP = 3,
};
