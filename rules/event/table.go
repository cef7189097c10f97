package event

import (
	"sort"
	"strings"
)

// Kind is the type of a field.
type Kind uint8

// The kinds of fields. An address is text to a policy ("192.0.2.7") and is
// matched as an address.
const (
	KindString Kind = iota + 1
	KindNumber
	KindBool
	KindAddress
	KindStrings   // list of strings
	KindProcesses // list of {pid, start, name, executable}
	KindMap       // text by key; only with a key: vm.metadata.zone
)

var kindNames = [...]string{
	KindString: "string", KindNumber: "number", KindBool: "bool", KindAddress: "address",
	KindStrings: "list of strings", KindProcesses: "list of processes", KindMap: "map of strings",
}

// String returns the kind as documentation writes it.
func (k Kind) String() string { return kindNames[k] }

// Field names one field of an Event. Numbers are internal: nothing stores them.
type Field uint16

// The fields, grouped by kind so that each kind has dense slots.
const (
	EventType Field = iota
	EventCategory
	EventAction
	EventOrigin
	EventTime
	EventReason
	EventOutcome
	VMUUID
	VMName
	VMState
	ProcessName
	ProcessExecutable
	ProcessFilename
	ProcessScript
	ProcessCommandLine
	ProcessWorkingDirectory
	ProcessEntityID
	ProcessHashSHA256
	ProcessCgroup
	ProcessContainerID
	ParentName
	ParentExecutable
	ParentCommandLine
	ParentWorkingDirectory
	ParentEntityID
	ParentHashSHA256
	UserName
	FilePath
	FileName
	FileDirectory
	FileExtension
	FileTargetPath
	FileFilesystemPath
	FileHow
	NetworkDirection
	NetworkProtocol
	NetworkTransport
	NetworkType
	AgentVersion
	AgentKey
	AgentMode
	AgentKernel
	LostAuthor
	LibvirtDetail
	LibvirtConnection
	LibvirtSource
	PolicyName
	PolicySeverity
	PolicyMode
	PolicyAction
	PolicyRequester
	PolicyResult
	PolicyCause
	PolicyLimited
	ApprovalID
	ApprovalGroup
	ApprovalState
	ApprovalSubmitter
	ProcessFilesystemPath
	ObjectName
	ObjectExecutable
	ObjectEntityID
	FileLinkTarget
	FileAttribute
	FileHashSHA256
	NetworkPath
	SocketType
	DestinationDomain
	MemoryKind
	MemoryName
	KernelOperation
	KernelName
	KernelValue
	ModuleName
	ModulePath
	AuthOperation
	AuthTerminal
	AuthHostname
	AuthAddress
	AuthText
	AuthExecutable
	AuthCommand
	DNSQuestionName
	DNSQuestionType
	DNSResponseCode
	MountOperation
	MountAPI
	MountSource
	MountType
	MountSourcePath
	NamespaceOperation
	TamperKind
	TamperDetail
	TamperHook
	CommandID
	CommandKind
	CommandRequester
	LibvirtWord
	LibvirtDevice
	LibvirtPath
	LibvirtAddress
	LibvirtOld
	LibvirtNew
	LibvirtStatus
	LibvirtSide
	LibvirtLearned
	LibvirtClaimedBy
	LibvirtHashSHA256
	LibvirtRole
	endStrings
)

const (
	EventIndex Field = iota + endStrings
	EventSequence
	EventResult
	ProcessPID
	ProcessStart
	ProcessSessionID
	ProcessExecCount
	ProcessExitCode
	ProcessExitSignal
	ParentPID
	ParentStart
	UserID
	UserGroupID
	UserEffectiveID
	UserEffectiveGroupID
	UserLoginID
	FileInode
	FileDevice
	FileMode
	FileModeBefore
	FileSize
	FileSizeBefore
	FileUID
	FileGID
	FileOperations
	SourcePort
	DestinationPort
	AgentSession
	AgentCount
	AgentSilentSeconds
	AgentAttestationLevel
	LostCount
	GapSeconds
	LibvirtEventID
	LibvirtDetailID
	LibvirtDomainID
	EventCount
	EventUntil
	ThreadID
	ProcessArgsLength
	ProcessCgroupID
	ProcessDevice
	ProcessInode
	ProcessLinks
	ProcessSize
	ProcessMtime
	ProcessCtime
	ProcessMountNamespace
	ProcessPeakMemory
	ObjectPID
	ObjectStart
	UserSavedID
	UserSavedGroupID
	UserFilesystemID
	UserFilesystemGroupID
	BeforeUserID
	BeforeGroupID
	BeforeEffectiveID
	BeforeEffectiveGroupID
	BeforeSavedID
	BeforeSavedGroupID
	BeforeFilesystemID
	BeforeFilesystemGroupID
	FileRdev
	FileLinks
	FileAttributeSize
	FileBytesWritten
	FileMtime
	FileCtime
	FileCtimeBefore
	FileAtime
	NetworkNumber
	NetworkPackets
	NetworkBytes
	NetworkBacklog
	NetworkCookie
	SourceCID
	DestinationCID
	MemoryAddress
	MemorySize
	MemoryFlags
	MemoryTotal
	KernelType
	KernelID
	KernelSize
	KernelFlags
	AuthSessionID
	AuthMessageType
	DNSID
	MountFlags
	NamespaceMount
	NamespacePID
	NamespaceNetwork
	NamespaceUTS
	NamespaceIPC
	NamespaceCgroup
	NamespaceTime
	NamespaceUser
	CommandStatus
	LibvirtRepeats
	LibvirtOmitted
	LibvirtSize
	PolicyLimitMax
	ApprovalUses
	ApprovalMaxUses
	endNumbers
)

const (
	FileModeExecutable Field = iota + endNumbers
	FileReplaced
	ProcessArgsTruncated
	ModuleSigned
	DNSTruncated
	ProcessCoreDumped
	AgentResumed
	PolicyWouldHave
	EventCompat
	EventIOWorker
	EventAggregated
	EventSelf
	EventRefused
	ProcessDeleted
	ProcessInMemfd
	ProcessExecutableTruncated
	ProcessCwdTruncated
	ProcessKernelThread
	ProcessSnapshot
	ProcessSetuid
	ProcessSetgid
	ProcessFileCaps
	ProcessCompat
	FileDeleted
	FileDetached
	FilePathTruncated
	FileUserPath
	FileExchanged
	FileTemporary
	FileInMemory
	FileInternal
	NetworkFastOpen
	NetworkFirst
	MemoryAnonymous
	MemoryReadable
	MemoryWritable
	MemoryExecutable
	MemoryBeforeReadable
	MemoryBeforeWritable
	MemoryBeforeExecutable
	KernelRefused
	TamperRefused
	AgentAuthorised
	endBools
)

const (
	SourceIP Field = iota + endBools
	DestinationIP
	endAddresses
)

const (
	VMTags Field = iota + endAddresses
	ProcessArgs
	ParentArgs
	AgentUncovered
	LostReasons
	LostClasses
	GapChanges
	CapabilitiesEffective
	CapabilitiesPermitted
	CapabilitiesInheritable
	CapabilitiesBounding
	CapabilitiesAmbient
	CapabilitiesEffectiveBefore
	CapabilitiesPermittedBefore
	FileAttributes
	NamespaceChanged
	DNSResolvedIP
	DNSAliases
	LibvirtNumbers
	LibvirtChanged
	LibvirtChanges
	ApprovalSigners
	endLists
)

const (
	ProcessAncestors Field = iota + endLists
	VMMetadata
	endFields
)

// Info describes one field.
type Info struct {
	Field   Field
	Name    string
	Kind    Kind
	Classes ClassSet // event types that carry it
	// Optional says that an event of those types may lack it. What a guest
	// claims, it may always leave out.
	Optional bool
	// Host says that the host knows it; else it is the author's claim, which
	// for a guest's events means that a hostile guest can forge it.
	Host bool
	Enum []string // all possible values, where they are few
	Doc  string
}

const (
	opt  = true
	must = false
)

func claim(f Field, name string, k Kind, c ClassSet, optional bool, doc string) Info {
	return Info{Field: f, Name: name, Kind: k, Classes: c, Optional: optional, Doc: doc}
}

func fact(f Field, name string, k Kind, c ClassSet, optional bool, doc string) Info {
	return Info{Field: f, Name: name, Kind: k, Classes: c, Optional: optional, Host: true, Doc: doc}
}

func (i Info) enum(values ...string) Info { i.Enum = values; return i }

var (
	byName = make(map[string]*Info, len(Fields))
	byID   [endFields]*Info
	names  []string
)

func init() {
	for i := range Fields {
		f := &Fields[i]
		byName[f.Name] = f
		byID[f.Field] = f
		names = append(names, f.Name)
	}
	sort.Strings(names)
}

// Lookup returns the field with the given dotted name.
func Lookup(name string) (*Info, bool) { f, ok := byName[name]; return f, ok }

// Names returns every field's dotted name in alphabetical order. The caller
// must not change the slice.
func Names() []string { return names }

// Info returns the field's row of the table.
func (f Field) Info() *Info { return byID[f] }

// String returns the field's dotted name.
func (f Field) String() string {
	if f < endFields && byID[f] != nil {
		return byID[f].Name
	}
	return "field(?)"
}

// Root returns the part of the field's name before the first dot.
func (f Field) Root() string {
	root, _, _ := strings.Cut(f.String(), ".")
	return root
}
