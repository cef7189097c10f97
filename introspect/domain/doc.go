// Package domain holds the words the host parts share: which domain, and in what state. It promises
// to stay plain values: no libvirt, no IO. Every package of the host side may import it.
package domain
