package record

// ProcessFlag bits say more about a process image (Process.flags). Part of the
// format.
const (
	ProcessScript        = 1 << 0 // the image is the interpreter of the script in filename
	ProcessDeleted       = 1 << 1 // the executable had no name any more
	ProcessDetached      = 1 << 2 // the executable lies in no directory (memfd)
	ProcessPathTruncated = 1 << 3 // the executable's path is incomplete on the root's side
	ProcessCwdTruncated  = 1 << 4 // the same of the working directory
	ProcessKernelThread  = 1 << 5
	ProcessSnapshot      = 1 << 6 // it ran before the author did: told by /proc
	ProcessSetuid        = 1 << 7 // exec: the executable's set-user-id bit changed the credentials
	ProcessSetgid        = 1 << 8
	ProcessFileCaps      = 1 << 9  // exec: the executable's capabilities were gained
	ProcessCompat        = 1 << 10 // exec: a 32-bit image or call
	ProcessMemory        = 1 << 11 // the executable is memory (memfd): its path is the name it was given
)

// FileFlag bits say more about a file (File.flags). Part of the format.
const (
	FileDeleted       = 1 << 0 // it has no name any more
	FileDetached      = 1 << 1 // it lies in no directory (memfd)
	FilePathTruncated = 1 << 2 // the path is incomplete on the root's side
	FileUserPath      = 1 << 3 // the path is what the process passed, made absolute and read after the call
	FileExchanged     = 1 << 4 // rename: both names were swapped
	FileTemporary     = 1 << 5 // made by O_TMPFILE: it had no name
	FileMemory        = 1 << 6 // memfd: the path is its name
	FileInternal      = 1 << 7 // by a layer of the kernel (overlayfs), not by a call
)

// EventFlag bits say more about an observation (Event.flags). Part of the
// format.
const (
	EventCompat     = 1 << 0 // by a 32-bit system call
	EventIOWorker   = 1 << 1 // by a kernel thread on behalf of the process: io_uring
	EventAggregated = 1 << 2 // stands for several acts, see Event.count
	EventSelf       = 1 << 3 // the guest agent's own act
	EventRefused    = 1 << 4 // the probe refused it
)

// NetworkFlag bits say more about a connection (Network.flags). Part of the
// format.
const (
	NetworkFastOpen = 1 << 0 // TCP fast open: data went with the first packet
	NetworkFirst    = 1 << 1 // the first datagram to this destination
)
