package event

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/provostd/provost/chain/record"
)

func (d *Draft) file() *record.File       { return part(&d.event().File) }
func (d *Draft) target() *record.File     { return part(&d.event().Target) }
func (d *Draft) network() *record.Network { return part(&d.event().Network) }
func (d *Draft) memory() *record.Memory   { return part(&d.event().Memory) }
func (d *Draft) kernel() *record.Kernel   { return part(&d.event().Kernel) }
func (d *Draft) mount() *record.Mount     { return part(&d.event().Mount) }
func (d *Draft) ns() *record.Namespaces   { return part(&d.event().Namespaces) }
func (d *Draft) tamper() *record.Tamper   { return part(&d.event().Tamper) }
func (d *Draft) fileFlags() *uint32       { return &d.file().Flags }
func (d *Draft) networkFlags() *uint32    { return &d.network().Flags }

func (d *Draft) auth() *record.Auth {
	e := d.event()
	if e.Auth == nil {
		e.Auth = &record.Auth{SessionId: noLogin}
	}
	return e.Auth
}

func (d *Draft) dns() *record.DNS {
	e := d.event()
	if e.Dns == nil {
		e.Dns = &record.DNS{Type: 1, Answer: d.leaf.Header.Class == record.ClassDNSAnswer}
	}
	return e.Dns
}

func fileSetters() map[Field]setter {
	return map[Field]setter{
		FilePath:           setText(func(d *Draft) *[]byte { return &d.file().Path }),
		FileTargetPath:     setText(func(d *Draft) *[]byte { return &d.target().Path }),
		FileFilesystemPath: setText(func(d *Draft) *[]byte { return &d.file().FilesystemPath }),
		FileInode:          setWide(func(d *Draft) *uint64 { return &d.file().Inode }),
		FileDevice:         setWide(func(d *Draft) *uint64 { return &d.file().Device }),
		FileMode:           setNarrow(func(d *Draft) *uint32 { return &d.file().Mode }),
		FileModeBefore:     setNarrow(func(d *Draft) *uint32 { return &d.file().ModeBefore }),
		FileSize:           setWide(func(d *Draft) *uint64 { return &d.file().Size }),
		FileSizeBefore:     setWide(func(d *Draft) *uint64 { return &d.file().SizeBefore }),
		FileUID:            setNarrow(func(d *Draft) *uint32 { return &d.file().Uid }),
		FileGID:            setNarrow(func(d *Draft) *uint32 { return &d.file().Gid }),
		FileHow:            setWord(func(d *Draft) *string { return &d.file().How }),
		FileOperations:     setWide(func(d *Draft) *uint64 { return &d.file().Operations }),
		FileBytesWritten:   setWide(func(d *Draft) *uint64 { return &d.file().Bytes }),
		FileRdev:           setWide(func(d *Draft) *uint64 { return &d.file().Rdev }),
		FileLinks:          setNarrow(func(d *Draft) *uint32 { return &d.file().Links }),
		FileMtime:          setSigned(func(d *Draft) *int64 { return &d.file().Mtime }, 1),
		FileCtime:          setSigned(func(d *Draft) *int64 { return &d.file().Ctime }, 1),
		FileCtimeBefore:    setSigned(func(d *Draft) *int64 { return &d.file().CtimeBefore }, 1),
		FileAtime:          setSigned(func(d *Draft) *int64 { return &d.file().Atime }, 1),
		FileHashSHA256:     setSHA256(func(d *Draft) *[]byte { return &d.file().Sha256 }),
		FileLinkTarget:     setText(func(d *Draft) *[]byte { return &d.file().LinkTarget }),
		FileAttribute:      setText(func(d *Draft) *[]byte { return &d.file().Attribute }),
		FileAttributeSize:  setWide(func(d *Draft) *uint64 { return &d.file().AttributeSize }),
		FileAttributes:     setNames(FileAttributes, func(d *Draft) *uint64 { return &d.file().Attributes }),
		FileDeleted:        setBit((*Draft).fileFlags, record.FileDeleted),
		FileDetached:       setBit((*Draft).fileFlags, record.FileDetached),
		FilePathTruncated:  setBit((*Draft).fileFlags, record.FilePathTruncated),
		FileUserPath:       setBit((*Draft).fileFlags, record.FileUserPath),
		FileExchanged:      setBit((*Draft).fileFlags, record.FileExchanged),
		FileTemporary:      setBit((*Draft).fileFlags, record.FileTemporary),
		FileInMemory:       setBit((*Draft).fileFlags, record.FileMemory),
		FileInternal:       setBit((*Draft).fileFlags, record.FileInternal),
		FileReplaced: func(d *Draft, v any) error {
			if v.(bool) {
				part(&d.event().Replaced)
			}
			return nil
		},
		FileModeExecutable: func(d *Draft, v any) error {
			switch {
			case d.file().Mode != 0: // Entry sees whether it agrees
			case v.(bool):
				d.file().Mode = 0o100755
			default:
				d.file().Mode = 0o100644
			}
			return nil
		},

		MountOperation:  setWord(func(d *Draft) *string { return &d.mount().Operation }),
		MountAPI:        setWord(func(d *Draft) *string { return &d.mount().Api }),
		MountSource:     setText(func(d *Draft) *[]byte { return &d.mount().Source }),
		MountType:       setText(func(d *Draft) *[]byte { return &d.mount().Type }),
		MountFlags:      setWide(func(d *Draft) *uint64 { return &d.mount().Flags }),
		MountSourcePath: setText(func(d *Draft) *[]byte { return &d.mount().SourcePath }),
	}
}

// setAddress says an address, and with it which version of IP it is.
func setAddress(at func(*Draft) *[]byte) setter {
	return func(d *Draft, v any) error {
		a := netip.MustParseAddr(v.(string)).Unmap() // accepts has parsed it
		*at(d) = a.AsSlice()
		family := uint32(6)
		if a.Is4() {
			family = 4
		}
		if have := d.network().Family; have != 0 && have != family {
			return fmt.Errorf("is of another version of IP than what is said already")
		}
		d.network().Family = family
		return nil
	}
}

func networkSetters() map[Field]setter {
	source := setAddress(func(d *Draft) *[]byte { return &d.network().SourceIp })
	return map[Field]setter{
		SourceIP: func(d *Draft, v any) error {
			if setAuth.Has(d.leaf.Header.Class) {
				d.auth().Address = []byte(v.(string))
				return nil
			}
			return source(d, v)
		},
		DestinationIP:     setAddress(func(d *Draft) *[]byte { return &d.network().DestinationIp }),
		SourcePort:        setNarrow(func(d *Draft) *uint32 { return &d.network().SourcePort }),
		DestinationPort:   setNarrow(func(d *Draft) *uint32 { return &d.network().DestinationPort }),
		SourceCID:         setNarrow(func(d *Draft) *uint32 { return &d.network().SourceCid }),
		DestinationCID:    setNarrow(func(d *Draft) *uint32 { return &d.network().DestinationCid }),
		NetworkDirection:  setWord(func(d *Draft) *string { return &d.network().Direction }),
		NetworkProtocol:   setWord(func(d *Draft) *string { return &d.network().Protocol }),
		NetworkTransport:  setWord(func(d *Draft) *string { return &d.network().Protocol }),
		DestinationDomain: setText(func(d *Draft) *[]byte { return &d.network().Name }),
		SocketType:        setWord(func(d *Draft) *string { return &d.network().Type }),
		NetworkNumber:     setNarrow(func(d *Draft) *uint32 { return &d.network().Number }),
		NetworkPath:       setText(func(d *Draft) *[]byte { return &d.network().Path }),
		NetworkPackets:    setWide(func(d *Draft) *uint64 { return &d.network().Packets }),
		NetworkBytes:      setWide(func(d *Draft) *uint64 { return &d.network().Bytes }),
		NetworkBacklog:    setNarrow(func(d *Draft) *uint32 { return &d.network().Backlog }),
		NetworkCookie:     setWide(func(d *Draft) *uint64 { return &d.network().Cookie }),
		NetworkFastOpen:   setBit((*Draft).networkFlags, record.NetworkFastOpen),
		NetworkFirst:      setBit((*Draft).networkFlags, record.NetworkFirst),
		NetworkType: func(d *Draft, v any) error {
			d.network().Family = 4
			if v == "ipv6" {
				d.network().Family = 6
			}
			return nil
		},

		DNSQuestionName: setText(func(d *Draft) *[]byte { return &d.dns().Question }),
		DNSQuestionType: setNumbered(dnsTypes, "TYPE", func(d *Draft) *uint32 { return &d.dns().Type }),
		DNSResponseCode: setNumbered(dnsCodes, "RCODE", func(d *Draft) *uint32 { return &d.dns().Code }),
		DNSID:           setNarrow(func(d *Draft) *uint32 { return &d.dns().Id }),
		DNSTruncated:    setYes(func(d *Draft) *bool { return &d.dns().Truncated }),
		DNSAliases:      setTexts(func(d *Draft) *[][]byte { return &d.dns().Names }),
		DNSResolvedIP: func(d *Draft, v any) error {
			for _, s := range v.([]string) {
				a, err := netip.ParseAddr(s)
				if err != nil || a.Zone() != "" {
					return fmt.Errorf("has addresses such as 192.0.2.7 or 2001:db8::7, and %q is none", s)
				}
				d.dns().Addresses = append(d.dns().Addresses, a.Unmap().AsSlice())
			}
			return nil
		},
	}
}

func setNumbered(table map[uint32]string, prefix string, at func(*Draft) *uint32) setter {
	return func(d *Draft, v any) error {
		for n, name := range table {
			if name == v {
				*at(d) = n
				return nil
			}
		}
		if rest, ok := strings.CutPrefix(v.(string), prefix); ok {
			if n, err := strconv.ParseUint(rest, 10, 32); err == nil && table[uint32(n)] == "" {
				*at(d) = uint32(n)
				return nil
			}
		}
		return fmt.Errorf("is one of %s, or %s and a number that has no name", strings.Join(slices.Sorted(maps.Values(table)), ", "), prefix)
	}
}

func partSetters() map[Field]setter {
	after := func(d *Draft) *uint32 { return &d.memory().Protection }
	before := func(d *Draft) *uint32 { return &d.memory().ProtectionBefore }
	return map[Field]setter{
		MemoryKind:             setWord(func(d *Draft) *string { return &d.memory().Kind }),
		MemoryAddress:          setWide(func(d *Draft) *uint64 { return &d.memory().Address }),
		MemorySize:             setWide(func(d *Draft) *uint64 { return &d.memory().Length }),
		MemoryFlags:            setWide(func(d *Draft) *uint64 { return &d.memory().Flags }),
		MemoryName:             setText(func(d *Draft) *[]byte { return &d.memory().Name }),
		MemoryTotal:            setWide(func(d *Draft) *uint64 { return &d.memory().Total }),
		MemoryAnonymous:        setYes(func(d *Draft) *bool { return &d.memory().Anonymous }),
		MemoryReadable:         setBit(after, protRead),
		MemoryWritable:         setBit(after, protWrite),
		MemoryExecutable:       setBit(after, protExec),
		MemoryBeforeReadable:   setBit(before, protRead),
		MemoryBeforeWritable:   setBit(before, protWrite),
		MemoryBeforeExecutable: setBit(before, protExec),

		KernelOperation: setWord(func(d *Draft) *string { return &d.kernel().Operation }),
		KernelName:      setText(func(d *Draft) *[]byte { return &d.kernel().Name }),
		KernelType:      setWide(func(d *Draft) *uint64 { return &d.kernel().Type }),
		KernelID:        setWide(func(d *Draft) *uint64 { return &d.kernel().Id }),
		KernelSize:      setWide(func(d *Draft) *uint64 { return &d.kernel().Size }),
		KernelValue:     setText(func(d *Draft) *[]byte { return &d.kernel().Value }),
		KernelFlags:     setWide(func(d *Draft) *uint64 { return &d.kernel().Flags }),
		KernelRefused:   setYes(func(d *Draft) *bool { return &d.kernel().Refused }),
		ModuleName:      setText(func(d *Draft) *[]byte { return &d.kernel().Name }),
		ModulePath: func(d *Draft, v any) error {
			d.kernel() // a module is told of with it
			d.file().Path = []byte(v.(string))
			return nil
		},
		ModuleSigned: func(d *Draft, v any) error {
			d.kernel().Signature = "none"
			if v.(bool) {
				d.kernel().Signature = "valid"
			}
			return nil
		},

		AuthOperation:   setWord(func(d *Draft) *string { return &d.auth().Operation }),
		AuthTerminal:    setText(func(d *Draft) *[]byte { return &d.auth().Terminal }),
		AuthHostname:    setText(func(d *Draft) *[]byte { return &d.auth().Hostname }),
		AuthAddress:     setText(func(d *Draft) *[]byte { return &d.auth().Address }),
		AuthSessionID:   setNarrow(func(d *Draft) *uint32 { return &d.auth().SessionId }),
		AuthMessageType: setNarrow(func(d *Draft) *uint32 { return &d.auth().MessageType }),
		AuthText:        setText(func(d *Draft) *[]byte { return &d.auth().Text }),
		AuthExecutable:  setText(func(d *Draft) *[]byte { return &d.auth().Executable }),
		AuthCommand:     setText(func(d *Draft) *[]byte { return &d.auth().Command }),

		NamespaceOperation: setWord(func(d *Draft) *string { return &d.ns().Operation }),
		NamespaceMount:     setNarrow(func(d *Draft) *uint32 { return &d.ns().Mount }),
		NamespacePID:       setNarrow(func(d *Draft) *uint32 { return &d.ns().Pid }),
		NamespaceNetwork:   setNarrow(func(d *Draft) *uint32 { return &d.ns().Network }),
		NamespaceUTS:       setNarrow(func(d *Draft) *uint32 { return &d.ns().Uts }),
		NamespaceIPC:       setNarrow(func(d *Draft) *uint32 { return &d.ns().Ipc }),
		NamespaceCgroup:    setNarrow(func(d *Draft) *uint32 { return &d.ns().Cgroup }),
		NamespaceTime:      setNarrow(func(d *Draft) *uint32 { return &d.ns().Time }),
		NamespaceUser:      setNarrow(func(d *Draft) *uint32 { return &d.ns().User }),
		NamespaceChanged: func(d *Draft, v any) error {
			var n uint64
			if err := setNames(NamespaceChanged, func(*Draft) *uint64 { return &n })(d, v); err != nil {
				return err
			}
			d.ns().Changed = uint32(n)
			return nil
		},

		TamperKind:    setWord(func(d *Draft) *string { return &d.tamper().Kind }),
		TamperDetail:  setWord(func(d *Draft) *string { return &d.tamper().Detail }),
		TamperHook:    setWord(func(d *Draft) *string { return &d.tamper().Hook }),
		TamperRefused: setYes(func(d *Draft) *bool { return &d.tamper().Refused }),
	}
}
