// Package actions tries every action on real libvirt and QEMU: which variants of
// snapshots and of network isolation work for which disks and interfaces, how long they
// take, and that all is as it was behind a release. Its table is docs/actions.md.
package actions
