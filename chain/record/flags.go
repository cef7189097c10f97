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
)

// FileFlag bits say more about a file (File.flags). Part of the format.
const (
	FileDeleted       = 1 << 0 // it has no name any more
	FileDetached      = 1 << 1 // it lies in no directory (memfd)
	FilePathTruncated = 1 << 2 // the path is incomplete on the root's side
	FileUserPath      = 1 << 3 // the path is what the process passed, made absolute and read after the call
	FileExchanged     = 1 << 4 // rename: both names were swapped
)
