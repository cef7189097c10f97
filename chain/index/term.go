package index

import (
	"encoding/binary"
	"net/netip"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Kinds of terms. Part of the format, see doc.go.
const (
	kindLog     = 'l'
	kindClass   = 'c'
	kindPath    = 'p'
	kindExe     = 'e'
	kindDigest  = 'h'
	kindAddress = 'a'
	kindProcess = 'P'
	kindParent  = 'q'
	kindObject  = 'o'
	kindUser    = 'u'
	kindName    = 'n'
	kindAccount = 'A'
)

// maxTerm is how much of a term is kept: a guest chooses how long its paths
// are. What is cut is decided on the entry itself.
const maxTerm = 256

func logTerm(id chain.LogID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(id)) }

func classTerm(c record.Class) []byte { return binary.BigEndian.AppendUint16(nil, uint16(c)) }

func userTerm(uid uint32) []byte { return binary.BigEndian.AppendUint32(nil, uid) }

// processTerm names a process in one boot of a guest.
func processTerm(pid uint32, start uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, pid), start)
}

func addressTerm(a netip.Addr, port uint32) []byte {
	b := a.As16()
	return binary.BigEndian.AppendUint16(b[:], uint16(port))
}

// terms calls add for each word by which an entry can be found, some of them
// more than once. A payload that is nil (erased) or of another kind leaves what
// the leaf tells.
func terms(id chain.LogID, class record.Class, m record.Message, add func(kind byte, term []byte)) {
	add(kindLog, logTerm(id))
	add(kindClass, classTerm(class))
	e, ok := m.(*record.Event)
	if !ok {
		return
	}
	if p := e.Process; p != nil {
		processTerms(class, p, add)
	}
	if o := e.Object; o != nil {
		add(kindObject, processTerm(o.Pid, o.Start))
	}
	eachPath(class, e, func(p []byte) { add(kindPath, p) })
	for _, f := range []*record.File{e.File, e.Target, e.Replaced} {
		if f != nil && len(f.Sha256) > 0 {
			add(kindDigest, f.Sha256)
		}
	}
	eachAddress(e, func(a netip.Addr, port uint32) { add(kindAddress, addressTerm(a, port)) })
	if n := e.Network; n != nil && len(n.Name) > 0 {
		add(kindName, n.Name)
	}
	if d := e.Dns; d != nil {
		for _, n := range append([][]byte{d.Question}, d.Names...) {
			if len(n) > 0 {
				add(kindName, n)
			}
		}
	}
	if a := e.Auth; a != nil && len(a.Account) > 0 {
		add(kindAccount, a.Account)
	}
}

func processTerms(class record.Class, p *record.Process, add func(kind byte, term []byte)) {
	add(kindProcess, processTerm(p.Pid, p.Start))
	exe := p.Executable
	if len(exe) == 0 {
		exe = p.Name
	}
	if len(exe) > 0 {
		add(kindExe, exe)
	}
	if c := p.Credentials; c != nil {
		add(kindUser, userTerm(c.Uid))
		if c.Euid != c.Uid {
			add(kindUser, userTerm(c.Euid))
		}
	}
	if len(p.Sha256) > 0 {
		add(kindDigest, p.Sha256)
	}
	if (class == record.ClassProcessFork || class == record.ClassProcessExec) && p.Ppid != 0 {
		add(kindParent, processTerm(p.Ppid, p.ParentStart))
	}
}

// eachPath calls f for each path of what an event is about. The executable of
// the process is one of them where the event is about the executable.
func eachPath(class record.Class, e *record.Event, f func([]byte)) {
	put := func(paths ...[]byte) {
		for _, p := range paths {
			if len(p) > 0 {
				f(p)
			}
		}
	}
	for _, x := range []*record.File{e.File, e.Target, e.Replaced} {
		if x != nil {
			put(x.Path, x.FilesystemPath)
		}
	}
	if e.Mount != nil {
		put(e.Mount.SourcePath)
	}
	if e.Network != nil {
		put(e.Network.Path)
	}
	if p := e.Process; p != nil && (class == record.ClassProcessExec || class == record.ClassProcessDigest) {
		put(p.Executable, p.FilesystemPath, p.Script)
	}
}

// eachAddress calls f for each address of an event; a port of 0 is unknown.
func eachAddress(e *record.Event, f func(a netip.Addr, port uint32)) {
	put := func(ip []byte, port uint32) {
		if a, ok := netip.AddrFromSlice(ip); ok {
			f(a.Unmap(), port)
		}
	}
	if n := e.Network; n != nil {
		put(n.SourceIp, n.SourcePort)
		put(n.DestinationIp, n.DestinationPort)
	}
	if d := e.Dns; d != nil {
		for _, a := range d.Addresses {
			put(a, 0)
		}
	}
	if a := e.Auth; a != nil && len(a.Address) > 0 && len(a.Address) <= 64 {
		if ip, err := netip.ParseAddr(string(a.Address)); err == nil {
			f(ip.WithZone("").Unmap(), 0)
		}
	}
}
