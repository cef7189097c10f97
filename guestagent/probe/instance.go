package probe

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// instance mounts a file system for this process alone and returns a descriptor
// of its root. It stands in no tree: nobody sees it, holds it, fills it, or
// mounts something over it, and it is gone with the descriptor.
func instance(kind string) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", kind, err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("make instance of %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make detached mount of %s: %w", kind, err)
	}
	return fd, nil
}
