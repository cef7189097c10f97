package probe

import (
	"os"
	"strings"
	"testing"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// The child's acts are seen and not told; a hook that goes is, once, and so is
// its return.
func TestWatch(t *testing.T) {
	p, c, stop := observe(t)
	w, err := newWatcher(p)
	if err != nil {
		t.Fatal(err)
	}
	acts, err := p.k.child(t.Context(), w.stats, []string{"/proc/self/exe", CanaryArg}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []bpf.ProbeEventType{bpf.ProbeEventTypeEV_FORK, bpf.ProbeEventTypeEV_EXEC, bpf.ProbeEventTypeEV_EXIT,
		bpf.ProbeEventTypeEV_CREATE, bpf.ProbeEventTypeEV_WRITE, bpf.ProbeEventTypeEV_MAP, bpf.ProbeEventTypeEV_MEMFD, bpf.ProbeEventTypeEV_BPF} {
		if !acts[typ] {
			t.Errorf("%s is not seen of the canary", classOf(uint8(typ)))
		}
	}
	var names []string
	for i, s := range acts {
		if s {
			names = append(names, classOf(uint8(i)).String())
		}
	}
	t.Logf("seen of the canary: %s", strings.Join(names, " "))
	p.cfg.Canary = []string{"/proc/self/exe", CanaryArg}
	defer func() { p.cfg.Canary = nil }()
	w.proven = acts
	if f := w.check(t.Context()); len(f) != 0 {
		t.Errorf("findings while all is well: %v", f)
	}
	w.proven[bpf.ProbeEventTypeEV_KEXEC] = true // which no canary does
	f := w.check(t.Context())
	if len(f) != 1 || f[0].tamper.Kind != "canary" || !strings.Contains(f[0].tamper.Detail, "kernel.kexec is not seen") || f[0].tamper.Hook == "" {
		t.Errorf("findings %v, want the one class that is not seen", f)
	}
	stop() // what tells is Run's alone
	p.tell(f[0], c)
	if f := w.check(t.Context()); len(f) != 0 {
		t.Errorf("told again: %v", f)
	}
	w.proven[bpf.ProbeEventTypeEV_KEXEC] = false
	s := c.find(t, "tamper event", func(s seen) bool { return s.h.Class == record.ClassAgentTamper })
	if s.e.Tamper.GetKind() != "canary" || s.e.Object.GetPid() != uint32(os.Getpid()) || s.h.Lane != record.NoLane {
		t.Errorf("tamper: %v of %v", s.e.Tamper, s.e.Object)
	}
}
