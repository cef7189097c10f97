// Package virt tests introspect/virt on a real libvirtd with real guests; it holds no code of its own.
package virt
