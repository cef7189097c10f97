// Package lab is one host under Provost for tests and for the demo: a private
// libvirtd, a domain with a real kernel and our agent, and a provostd built
// from this tree. It promises that the parts are the shipped binaries and that
// nothing of them is left behind by Close.
package lab
