// Package spine holds the tests of the whole path on real parts: real libvirtd,
// QEMU and guest kernel, the shipped programs, Pebble on disk. Nothing in the
// path is replaced.
package spine
