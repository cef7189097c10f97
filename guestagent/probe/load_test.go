package probe

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Every program loads on this kernel, or the kernel has no such hook, or it
// refuses the kind of program as a whole.
func TestLoad(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("loading programs takes root")
	}
	k, err := newKernel(Config{}, ModeAuto)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for name, p := range k.spec.Programs {
		err := k.load(name)
		var ve *ebpf.VerifierError
		switch {
		case err != nil && strings.Contains(err.Error(), "type STRUCT is unsupported"):
			t.Logf("%s (%s): not on this kernel: %s", name, p.SectionName, brief(err)) // before 5.15
		case err != nil && strings.Contains(err.Error(), "doesn't have 7-th argument"):
			t.Logf("%s (%s): the hook has other arguments on this kernel: %s", name, p.SectionName, brief(err))
		case err != nil && strings.Contains(err.Error(), "attaching to ambiguous kernel symbol"):
			t.Logf("%s (%s): this kernel has two of that name, the class has another hook: %s", name, p.SectionName, brief(err)) // 6.1
		case errors.As(err, &ve) && !errors.Is(err, unix.EPERM): // EACCES is the verifier's
			t.Errorf("%s: %+v", name, ve)
		case errors.Is(err, unix.EPERM), errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, btf.ErrNotFound):
			t.Logf("%s (%s): not on this kernel: %v", name, p.SectionName, err)
		case err != nil:
			t.Errorf("%s (%s): %v", name, p.SectionName, err)
		default:
			i, err := k.programs[name].Info()
			if err != nil {
				t.Fatal(err)
			}
			n, _ := i.VerifiedInstructions()
			t.Logf("%s (%s): %d instructions verified", name, p.SectionName, n)
		}
	}
}

// A class that one of its programs leaves uncovered is told by none of them;
// what another class had attached before stays.
func TestUncoveredIsDetached(t *testing.T) {
	k, err := newKernel(Config{}, ModeTracepoint)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.cover(cover{needs: []program{progExec}}); err != nil {
		t.Fatal(err)
	}
	missing := program{name: "on_nothing", hook: "fentry/nothing"}
	k.failed[missing.name] = errors.New("this kernel has no such hook")
	_, err = k.cover(cover{needs: []program{progExec, progFork, progOpened, missing}})
	if err == nil || !k.attached(progExec) || k.attached(progFork) || k.attached(progOpened) {
		t.Errorf("%v; attached: exec %v, fork %v, opened %v", err, k.attached(progExec), k.attached(progFork), k.attached(progOpened))
	}
	for _, nr := range progOpened.calls {
		if name := k.calls[nr]; name != "" {
			t.Errorf("system call %d still enters %s", nr, name)
		}
	}
	if _, err := k.cover(cover{needs: []program{progFork, progOpened}}); err != nil || !k.attached(progFork) || !k.attached(progOpened) {
		t.Errorf("attached for another class: %v", err)
	}
}
