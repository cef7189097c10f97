package event

import (
	"net/netip"

	"github.com/provostd/provost/chain/record"
)

// Bits of a mapping's protection, as mmap(2) takes them.
const (
	protRead  = 1
	protWrite = 2
	protExec  = 4
)

// loadParts tells the parts of an event that few classes carry.
func (e *Event) loadParts(class record.Class, p *record.Event) {
	if p.Memory != nil {
		e.loadMemory(p.Memory)
	}
	if p.Kernel != nil {
		e.loadKernel(class, p)
	}
	if p.Auth != nil {
		e.loadAuth(p.Auth)
	}
	if p.Dns != nil {
		e.loadDNS(class, p.Dns)
	}
	if p.Mount != nil {
		e.loadMount(p.Mount)
	}
	if p.Namespaces != nil {
		e.loadNamespaces(p.Namespaces)
	}
	if t := p.Tamper; t != nil {
		e.SetString(TamperKind, t.Kind)
		e.SetString(TamperDetail, t.Detail)
		e.SetString(TamperHook, t.Hook)
		e.SetBool(TamperRefused, t.Refused)
	}
}

func (e *Event) loadMemory(m *record.Memory) {
	e.SetString(MemoryKind, m.Kind)
	e.nonzero(MemoryAddress, m.Address)
	e.SetNumber(MemorySize, m.Length)
	e.SetNumber(MemoryFlags, m.Flags)
	e.nonzero(MemoryTotal, m.Total)
	e.bytes(MemoryName, m.Name)
	e.SetBool(MemoryAnonymous, m.Anonymous)
	e.SetBool(MemoryReadable, m.Protection&protRead != 0)
	e.SetBool(MemoryWritable, m.Protection&protWrite != 0)
	e.SetBool(MemoryExecutable, m.Protection&protExec != 0)
	e.SetBool(MemoryBeforeReadable, m.ProtectionBefore&protRead != 0)
	e.SetBool(MemoryBeforeWritable, m.ProtectionBefore&protWrite != 0)
	e.SetBool(MemoryBeforeExecutable, m.ProtectionBefore&protExec != 0)
}

func (e *Event) loadKernel(class record.Class, p *record.Event) {
	k := p.Kernel
	e.SetString(KernelOperation, k.Operation)
	e.bytes(KernelName, k.Name)
	e.SetNumber(KernelType, k.Type)
	e.nonzero(KernelID, k.Id)
	e.nonzero(KernelSize, k.Size)
	e.bytes(KernelValue, k.Value)
	e.SetNumber(KernelFlags, k.Flags)
	e.SetBool(KernelRefused, k.Refused)
	switch class {
	case record.ClassKernelModuleLoad:
		e.bytes(ModuleName, k.Name)
		if p.File != nil {
			e.bytes(ModulePath, p.File.Path)
		}
		if k.Signature != "" {
			e.SetBool(ModuleSigned, k.Signature == "valid")
		}
	case record.ClassKernelModuleUnload:
		e.bytes(ModuleName, k.Name)
	}
}

// loadAuth tells what a program that checks identities said. The account is
// the user of such an event, whoever the program itself runs as.
func (e *Event) loadAuth(a *record.Auth) {
	e.bytes(UserName, a.Account)
	e.SetString(AuthOperation, a.Operation)
	e.bytes(AuthTerminal, a.Terminal)
	e.bytes(AuthHostname, a.Hostname)
	e.bytes(AuthAddress, a.Address)
	if ip, err := netip.ParseAddr(alias(a.Address)); err == nil {
		e.SetAddr(SourceIP, ip)
	}
	if a.SessionId != noLogin {
		e.SetNumber(AuthSessionID, uint64(a.SessionId))
	}
	e.nonzero(AuthMessageType, uint64(a.MessageType))
	e.bytes(AuthText, a.Text)
	e.bytes(AuthExecutable, a.Executable)
	e.bytes(AuthCommand, a.Command)
	if a.Success {
		e.SetString(EventOutcome, "success")
	} else {
		e.SetString(EventOutcome, "failure")
	}
}

func (e *Event) loadNamespaces(n *record.Namespaces) {
	e.SetString(NamespaceOperation, n.Operation)
	e.mask(NamespaceChanged, uint64(n.Changed))
	e.nonzero(NamespaceMount, uint64(n.Mount))
	e.nonzero(NamespacePID, uint64(n.Pid))
	e.nonzero(NamespaceNetwork, uint64(n.Network))
	e.nonzero(NamespaceUTS, uint64(n.Uts))
	e.nonzero(NamespaceIPC, uint64(n.Ipc))
	e.nonzero(NamespaceCgroup, uint64(n.Cgroup))
	e.nonzero(NamespaceTime, uint64(n.Time))
	e.nonzero(NamespaceUser, uint64(n.User))
}
