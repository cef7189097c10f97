package harness

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// Accel is the way a guest's processor is run.
type Accel string

const (
	AccelTCG Accel = "tcg" // software emulation, works everywhere
	AccelKVM Accel = "kvm"
)

func (a Accel) orTCG() Accel {
	if a == "" {
		return AccelTCG
	}
	return a
}

// Linux KVM interface numbers, from linux/kvm.h.
const (
	kvmGetAPIVersion = 0xAE00
	kvmCreateVM      = 0xAE01
	kvmAPIVersion    = 12
)

// kvmBootDeadline is enough for a boot with KVM on a loaded machine (it takes about a second).
const kvmBootDeadline = 10 * time.Second

// BestAccel says whether KVM really runs Debian's kernel on this machine. A device node, even one
// that creates virtual machines, is no proof: on some nested machines the guest hangs at its first
// instructions. So the test image is booted once; the answer is kept in the cache until the
// machine boots again.
func BestAccel(ctx context.Context, cache Cache, img Image) (Accel, error) {
	if !kvmAnswers() {
		return AccelTCG, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("probe KVM: %w", err)
	}
	unlock, err := cache.lock() // others wait for the answer instead of probing at the same time
	if err != nil {
		return "", err
	}
	defer unlock()
	memo := cache.path("accel")
	if data, err := os.ReadFile(memo); err == nil {
		id, answer, ok := strings.Cut(strings.TrimSpace(string(data)), " ")
		if ok && id == strings.TrimSpace(string(boot)) && (answer == string(AccelKVM) || answer == string(AccelTCG)) {
			return Accel(answer), nil
		}
	}
	answer := AccelTCG
	if err := bootWithKVM(ctx, img); err == nil {
		answer = AccelKVM
	} else if ctx.Err() != nil {
		return "", fmt.Errorf("probe KVM: %w", ctx.Err())
	}
	line := strings.TrimSpace(string(boot)) + " " + string(answer) + "\n"
	if err := replaceFile(memo, 0o644, []byte(line)); err != nil {
		return "", fmt.Errorf("probe KVM: %w", err)
	}
	return answer, nil
}

func kvmAnswers() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	version, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), kvmGetAPIVersion, 0)
	if errno != 0 || version != kvmAPIVersion {
		return false
	}
	vm, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), kvmCreateVM, 0)
	if errno != 0 {
		return false
	}
	syscall.Close(int(vm))
	return true
}

func bootWithKVM(ctx context.Context, img Image) error {
	dir, err := os.MkdirTemp("", "provost-kvm-")
	if err != nil {
		return fmt.Errorf("probe KVM: %w", err)
	}
	defer os.RemoveAll(dir)
	vm, err := StartVM(VMConfig{Image: img, Dir: dir, Accel: AccelKVM})
	if err != nil {
		return err
	}
	defer vm.Close()
	ctx, cancel := context.WithTimeout(ctx, kvmBootDeadline)
	defer cancel()
	return vm.WaitConsole(ctx, "PROVOST-GUEST-UP")
}
