package event

import "strconv"

// mask sets a list that the bits of n stand for. The list itself is made when
// it is asked for: each event of a process has sets of capabilities, and few
// policies read them.
func (e *Event) mask(f Field, n uint64) {
	if n == 0 {
		e.drop(f)
		return
	}
	e.masks[f-endAddresses] = n
	e.deferred(f)
}

// forceList makes a list of the names of bits.
func (e *Event) forceList(f Field) []string {
	names, _ := maskNames(f)
	from := len(e.texts)
	for bit := range 64 {
		if e.masks[f-endAddresses]&(1<<bit) == 0 {
			continue
		}
		if bit < len(names) && names[bit] != "" {
			e.texts = append(e.texts, names[bit])
		} else { // of a newer kernel
			e.texts = append(e.texts, "bit_"+strconv.Itoa(bit))
		}
	}
	e.lazy[f/64] &^= 1 << (f % 64)
	e.lists[f-endAddresses] = e.texts[from:len(e.texts):len(e.texts)]
	e.set(f)
	return e.lists[f-endAddresses]
}

// maskNames returns the names of the bits that a list stands for, and whether
// it is such a list.
func maskNames(f Field) ([]string, bool) {
	switch f {
	case FileAttributes:
		return attributeNames[:], true
	case NamespaceChanged:
		return namespaceNames[:], true
	case CapabilitiesEffective, CapabilitiesPermitted, CapabilitiesInheritable, CapabilitiesBounding, CapabilitiesAmbient,
		CapabilitiesEffectiveBefore, CapabilitiesPermittedBefore:
		return capabilityNames[:], true
	}
	return nil, false
}

// capabilityNames are the names of capabilities(7) by their number.
var capabilityNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
	"CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON",
	"CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// attributeNames are the file attributes of chattr(1) by their bit.
var attributeNames = [...]string{
	0: "secure_delete", 1: "undelete", 2: "compressed", 3: "sync", 4: "immutable", 5: "append", 6: "nodump", 7: "noatime",
	11: "encrypted", 12: "indexed", 14: "journal_data", 15: "notail", 16: "dirsync", 17: "topdir", 18: "huge_file", 19: "extents",
	20: "verity", 21: "ea_inode", 23: "nocow", 25: "dax", 28: "inline_data", 29: "project_inherit", 30: "casefold",
}

// namespaceNames are the kinds of namespaces by the bit that clone(2) gives
// them.
var namespaceNames = [...]string{
	7: "time", 17: "mount", 25: "cgroup", 26: "uts", 27: "ipc", 28: "user", 29: "pid", 30: "network",
}
