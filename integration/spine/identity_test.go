package spine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/integration/lab"
)

// identityLab is a lab with a qcow2 disk, which snapshots with memory want. The domain
// is not there where it is to arrive.
func identityLab(t *testing.T, ctx context.Context, name, uuid string, arrives bool) *lab.Lab {
	t.Helper()
	const disk = "/var/lib/libvirt/images/d.qcow2"
	l, err := lab.New(ctx, lab.Config{
		Dir: fmt.Sprintf("/run/pv-%d-%s", os.Getpid(), name), HostID: name + ".lab", UUID: uuid, Channel: true, Out: t.Logf,
		AgentArgs: []string{"-protect", "off"}, Extra: "guest {\n  silent_after = \"30s\"\n}\n",
		Devices: `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='` + disk + `'/><target dev='vda' bus='virtio'/></disk>`,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = l.CopyLog(t.Output()) // what it says helps; that it cannot be read does not
			tell(t, l)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(filepath.Dir(l.Host.Outside(disk)), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Host.Command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", disk, "4M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	if arrives { // only its kernel is wanted
		if err := l.Guest.Undefine(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// tell writes what was sealed about the lifetime of a domain.
func tell(t *testing.T, l *lab.Lab) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := l.Entries(ctx)
	if err != nil {
		t.Log(err)
	}
	for _, e := range all {
		if c := e.Leaf.Header.Class.String(); strings.HasPrefix(c, "vm.") || strings.HasPrefix(c, "agent.") || strings.HasPrefix(c, "log.") {
			t.Logf("%s %d %s: %s", e.Log, e.Leaf.Index, c, record.Text(e.Leaf.Header.Class, e.Msg))
		}
	}
}

func virsh(t *testing.T, ctx context.Context, l *lab.Lab, args ...string) string {
	t.Helper()
	out, err := l.Host.Virsh(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// epoch waits for the nth epoch of the domain and the enrolment in it.
func epoch(t *testing.T, ctx context.Context, l *lab.Lab, n int) *record.Epoch {
	t.Helper()
	e := wait(t, ctx, l, fmt.Sprintf("epoch %d", n), nth(n, lab.Of(record.ClassVMEpoch))).Msg.(*record.Epoch)
	wait(t, ctx, l, "the enrolment in it", func(i *lab.Entry) bool {
		m, ok := i.Msg.(*record.Enrolled)
		return ok && bytes.Equal(m.Epoch, e.Epoch)
	})
	return e
}

// marked waits for the marker of an epoch in the live metadata.
func marked(t *testing.T, ctx context.Context, l *lab.Lab, e *record.Epoch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for want := fmt.Sprintf("id='%x'", e.Epoch); ; {
		if strings.Contains(strings.ReplaceAll(virsh(t, ctx, l, "dumpxml", l.Domain), `"`, "'"), want) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("epoch %x was not marked", e.Epoch)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tick runs a program in the guest and waits until it is sealed.
func tick(t *testing.T, ctx context.Context, l *lab.Lab, name string) {
	t.Helper()
	guestRun(t, ctx, l, "/bin/busybox true "+name)
	wait(t, ctx, l, name, lab.Exec("/bin/busybox", "true", name))
}

// noAlarm holds that nothing of what the agent did looks like an attack, or a loss.
func noAlarm(t *testing.T, ctx context.Context, l *lab.Lab) {
	t.Helper()
	for _, e := range entries(t, ctx, l) {
		switch e.Leaf.Header.Class {
		case record.ClassAgentRefused, record.ClassAgentSignatureInvalid, record.ClassAgentRollback, record.ClassAgentForked, record.ClassAgentCloned, record.ClassAgentSequenceGap:
			t.Errorf("leaf %d: %s: %s", e.Leaf.Index, e.Leaf.Header.Class, record.Text(e.Leaf.Header.Class, e.Msg))
		}
	}
}

func export(t *testing.T, ctx context.Context, l *lab.Lab) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "b.zip")
	if _, err := l.Provost(ctx, "export", "--socket", l.Socket(), "-o", file, l.Guest.UUID()); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestMemoryTakenBack saves a guest, restores it twice from the one file, and reverts
// it to a snapshot, its agent running throughout. Each is an epoch that hangs where
// memory was saved; what the agent repeats is told as that, and no alarm is raised.
func TestMemoryTakenBack(t *testing.T) {
	ctx := testContext(t)
	l := identityLab(t, ctx, "idback", "", false)
	if _, err := l.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	const file = "/var/lib/libvirt/images/f.save"
	first := epoch(t, ctx, l, 1)
	marked(t, ctx, l, first)
	tick(t, ctx, l, "before-the-save")
	virsh(t, ctx, l, "save", l.Domain, file)
	virsh(t, ctx, l, "restore", file)
	second := epoch(t, ctx, l, 2)
	marked(t, ctx, l, second)
	tick(t, ctx, l, "in-the-first-restore")
	virsh(t, ctx, l, "destroy", l.Domain)
	virsh(t, ctx, l, "restore", file)
	third := epoch(t, ctx, l, 3)
	tick(t, ctx, l, "in-the-second-restore")
	for i, e := range []*record.Epoch{second, third} {
		if e.Cause != "restore" || !bytes.Equal(e.Parent, first.Epoch) || e.ImageUses != uint64(i+1) || e.Presumed || len(e.ParentHash) == 0 {
			t.Errorf("restore %d: %s", i+1, record.Text(record.ClassVMEpoch, e))
		}
	}
	if second.ParentIndex != third.ParentIndex || !bytes.Equal(third.Abandoned, second.Epoch) {
		t.Errorf("the second restore: %s", record.Text(record.ClassVMEpoch, third))
	}
	wait(t, ctx, l, "the fork", lab.Of(record.ClassVMFork))
	wait(t, ctx, l, "the agent that repeats numbers", lab.Of(record.ClassAgentRewound))

	marked(t, ctx, l, third)
	virsh(t, ctx, l, "snapshot-create-as", l.Domain, "s1")
	tick(t, ctx, l, "behind-the-snapshot")
	virsh(t, ctx, l, "snapshot-revert", l.Domain, "s1")
	fourth := epoch(t, ctx, l, 4)
	tick(t, ctx, l, "behind-the-revert")
	if fourth.Cause != "revert" || !bytes.Equal(fourth.Parent, third.Epoch) || !bytes.Equal(fourth.Abandoned, third.Epoch) ||
		!strings.Contains(fourth.Image, `"s1"`) || fourth.ParentIndex >= fourth.AbandonedIndex || fourth.Presumed {
		t.Errorf("the revert: %s", record.Text(record.ClassVMEpoch, fourth))
	}
	at := entries(t, ctx, l)[fourth.ParentIndex]
	if at.Leaf.Header.Class != record.ClassVMPause {
		t.Errorf("it branches from a %s, want the pause of the snapshot", at.Leaf.Header.Class)
	}
	wait(t, ctx, l, "the second fork", nth(2, lab.Of(record.ClassVMFork)))
	noAlarm(t, ctx, l)

	// Behind libvirt's back, in the QEMU that runs.
	virsh(t, ctx, l, "qemu-monitor-command", l.Domain, "--hmp", "savevm", "unseen")
	tick(t, ctx, l, "behind-the-unseen-snapshot")
	virsh(t, ctx, l, "qemu-monitor-command", l.Domain, "--hmp", "loadvm", "unseen")
	guestRun(t, ctx, l, "/bin/busybox true in-the-other-history")
	wait(t, ctx, l, "the alarm", lab.Of(record.ClassAgentForked))
	if fifth := epoch(t, ctx, l, 5); fifth.Cause != "rewound" || !fifth.Presumed || !bytes.Equal(fifth.Abandoned, fourth.Epoch) {
		t.Errorf("the revert that nobody told of: %s", record.Text(record.ClassVMEpoch, fifth))
	}
	tick(t, ctx, l, "told-again")

	out, err := l.Provost(ctx, "verify", "--key", l.Dir+"/state/keys/host.vkey", export(t, ctx, l))
	if err != nil || !strings.HasPrefix(out, "VALID") {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// TestMigration moves a running guest from one host to another, each with a daemon of
// its own: the source tells how far it was, the destination goes on behind it, nothing
// is missing between, and evidence of both verifies as one history.
func TestMigration(t *testing.T) {
	ctx := testContext(t)
	uuid := harness.NewUUID()
	a, b := identityLab(t, ctx, "ida", uuid, false), identityLab(t, ctx, "idb", uuid, true)
	if _, err := a.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	first := epoch(t, ctx, a, 1)
	marked(t, ctx, a, first)
	tick(t, ctx, a, "at-the-source")
	virsh(t, ctx, a, "migrate", "--live", "--unsafe", "--persistent", "--undefinesource", a.Domain, b.Host.URI(), "tcp://127.0.0.1:49311")
	a.Domain = uuid // its name is gone with it
	handover := wait(t, ctx, a, "the handover", lab.Of(record.ClassVMHandover)).Msg.(*record.Handover)
	wait(t, ctx, a, "the end of its log", lab.Of(record.ClassClosed))
	b.Domain = uuid
	var arrival *lab.Entry
	for arrival == nil { // until its log begins
		c, cancel := context.WithTimeout(ctx, 5*time.Second)
		arrival, _ = b.Wait(c, "the arrival", func(e *lab.Entry) bool {
			m, ok := e.Msg.(*record.Epoch)
			return ok && m.Cause == "arrival"
		})
		cancel()
		if ctx.Err() != nil {
			t.Fatal("the domain did not arrive")
		}
	}
	e := arrival.Msg.(*record.Epoch)
	tick(t, ctx, b, "at-the-destination")
	arrived := wait(t, ctx, b, "what the agent brought", lab.Of(record.ClassAgentArrived)).Msg.(*record.Handover)
	source := entries(t, ctx, a)
	if !bytes.Equal(e.Parent, first.Epoch) || !bytes.Equal(handover.Epoch, first.Epoch) || !bytes.Equal(arrived.Epoch, first.Epoch) ||
		e.ParentOrigin != source[0].Log || arrived.Origin != source[0].Log {
		t.Errorf("departed %v\narrived %v\n%s", handover, arrived, record.Text(record.ClassVMEpoch, e))
	}
	if arrived.Session != handover.Session || !bytes.Equal(arrived.Key, handover.Key) || arrived.Frame > handover.Frame {
		t.Errorf("the agent left with session %x frame %d and arrived with session %x frame %d", handover.Session, handover.Frame, arrived.Session, arrived.Frame)
	}
	if leaf := source[arrived.Index]; !bytes.Equal(leaf.Hash[:], arrived.Hash) || leaf.Leaf.Header.Class != record.ClassAgentFrame {
		t.Errorf("its acknowledgement is of entry %d, which is a %s", arrived.Index, leaf.Leaf.Header.Class)
	}
	noAlarm(t, ctx, a)
	noAlarm(t, ctx, b)

	keys := []string{"--key", a.Dir + "/state/keys/host.vkey", "--key", b.Dir + "/state/keys/host.vkey"}
	left, came := export(t, ctx, a), export(t, ctx, b)
	out, err := b.Provost(ctx, append(append([]string{"verify"}, keys...), came, left)...)
	if err != nil || !strings.Contains(out, "VALID together") || !strings.Contains(out, ": whole, agent session") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err = b.Provost(ctx, append(append([]string{"tree"}, keys...), left, came)...)
	t.Logf("drawn as\n%s", out)
	if err != nil || !strings.Contains(out, "arrival  idb.lab/vm/") || strings.Contains(out, "in none of the bundles") {
		t.Errorf("tree: %v", err)
	}
	// Small bundles of the logs that ended and began with the move say the same.
	parts := []string{}
	for i, l := range []*lab.Lab{a, b} {
		file := filepath.Join(t.TempDir(), "l.zip")
		if _, err := l.Provost(ctx, "export", "--socket", l.Socket(), "--lineage", "--log", []string{source[0].Log, arrival.Log}[i], "-o", file, uuid); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, file)
	}
	out, err = b.Provost(ctx, append(append([]string{"tree"}, keys...), parts...)...)
	if err != nil || !strings.Contains(out, ": whole, agent session") {
		t.Errorf("tree of what tells of epochs: %v\n%s", err, out)
	}

	// A bundle of the destination alone is valid, and says what it cannot show.
	out, err = b.Provost(ctx, append(append([]string{"tree"}, keys...), came)...)
	if err != nil || !strings.Contains(out, "unproved") || !strings.Contains(out, "in none of the bundles") {
		t.Errorf("tree of one side: %v\n%s", err, out)
	}
}
