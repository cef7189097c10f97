// Package harness runs real hosts and real guests for tests and for the demo: a libvirtd of its own
// in its own namespaces, guests with Debian's cloud kernel, and a control channel which runs shell
// scripts in a guest. It promises that nothing of the machine it runs on is changed outside the
// directories given to it, and that what it started is gone after Close, also when the run before
// was interrupted.
//
// What it builds on:
//
//   - [Cache] holds downloaded kernels and built guest images; it may be deleted at any time when no guest runs.
//   - [BuildImage] makes an initramfs with busybox, the kernel modules needed and, if given, provost-agent.
//   - [StartVM] boots an image under plain QEMU, without libvirt.
//   - [NewHost] starts a private libvirtd ("a host"); two of them are two hosts.
//   - [Host.DefineGuest] defines a domain on it; [Guest.Run] runs a script in the guest.
//
// Root is required. It imports nothing of Provost, so that it stays an independent witness of what
// Provost says: domain states are asked of virsh, never of introspect/virt.
package harness
