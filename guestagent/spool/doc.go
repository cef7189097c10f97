// Package spool keeps runs of bytes on a disk, first in, first out, while there
// is nobody to give them to. It promises that what Take returns is what Put was
// given, in that order, or an error that names what is missing: whoever can
// write to the disk can destroy, but not change, reorder, repeat or withhold
// without notice. It is for one process and one run: keys are drawn as they are
// needed and exist in its memory only, nothing outlives the process, not even a
// file name. The guest agent imports it.
//
// # On the disk
//
// Runs are encrypted with AES-256-GCM into segments: files without a name
// (O_TMPFILE, or unlinked as soon as they are opened), whose space is reserved
// before the first byte goes in and given back when the last run was taken. A
// segment is a sequence of sealed runs and nothing else: where each stands, how
// long it is, its number and its nonce are kept in memory, and so is the key,
// another one for each segment.
//
//	nonce       12 bytes, drawn for this run
//	additional  "provost/spool/v1" || 0x00 || 8 number, from 0 || 8 length
//
// A run that was exchanged for another one, an older one of its place included,
// does not open. Nonces are drawn and not counted, since a guest may be restored
// or cloned in between, and its branches count alike: the kernel's generator,
// where the hypervisor tells it of that, does not draw alike.
//
// A Spool is not safe for concurrent use. All its disk access happens in Put,
// Take and Close, which may take as long as the disk does.
package spool
