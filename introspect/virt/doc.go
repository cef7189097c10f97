// Package virt is the libvirt adapter. It promises two things: everything libvirt says about any
// domain becomes an [Observation], in the order libvirt said it, and every stretch of time in which
// libvirt could not be heard is told as a gap with what has changed meanwhile (I4); and operations
// on domains are idempotent, have deadlines, and say what they found and what they left.
//
// It is the only package that links libvirt; build with -tags libvirt_dlopen, which loads the
// library at run time.
//
// How an observation travels: libvirt calls back on the event thread, which copies the event,
// stamps it and puts it into a queue, and never waits or makes calls. The deliverer takes events off
// the queue in order, has the facts about the domain read by a bounded set of workers (never
// on the event thread, never without a deadline), and hands the observation to Config.Sink, which
// may block: the queue then grows in memory and Stats tells its length.
//
// Domains are identified by what libvirt says: UUID, and for a running one the pid in libvirt's
// own pid file with that process's start time (I3).
package virt
