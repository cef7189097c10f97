// Package agent tests the guest agent in real guests: Debian's kernels under
// QEMU, the static binary, the virtio-serial port, and at its other end a host
// that verifies all it gets. It promises that what a guest did is there, field
// by field, or its loss is accounted for exactly.
package agent
