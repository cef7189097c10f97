package mirror_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
)

// write puts the logs of a liar into a directory as the service gives them: with
// the payloads that verification needs.
func (l *liar) write(dir string) {
	l.t.Helper()
	for name, f := range l.published(chain.OpensItself) {
		name = filepath.Join(dir, filepath.FromSlash(name))
		l.must(os.MkdirAll(filepath.Dir(name), 0o755))
		l.must(os.WriteFile(name, f.Data, 0o600))
	}
}

// BenchmarkVerifyMillion verifies a host with one VM log of a million entries, in
// frames of 64 records, from a directory: every leaf, the tree, every frame's
// signature.
func BenchmarkVerifyMillion(b *testing.B) {
	const million, records = 1_000_000, 64
	l := newLiar(b).certify()
	vm := l.vm(1, 1, nil)
	key := vm.enroll(1, nil)
	for n := uint64(0); len(vm.leaves)+records+1 <= million; n++ {
		vm.records(key, 1, n+1, n*records, records, nil)
	}
	for len(vm.leaves) < million {
		vm.change("filled up")
	}
	vm.sign().quote()
	l.log.sign()
	dir := b.TempDir()
	l.write(dir)
	vkey, err := proof.VerifierKey(proof.HostOrigin(hostID), l.keys.HostPublic())
	l.must(err)
	l.vms, vm = nil, nil
	root, err := os.OpenRoot(dir)
	l.must(err)
	defer root.Close()
	runtime.GC()
	best := 0.0
	for b.Loop() {
		began := b.Elapsed()
		r, err := mirror.Verify(b.Context(), mirror.Files{FS: root.FS()}, vkey, mirror.Options{Frame: frame})
		if err != nil || r.Logs[1].Size != million {
			b.Fatal(err)
		}
		if took := (b.Elapsed() - began).Seconds(); best == 0 || took < best {
			best = took
		}
	}
	fmt.Printf("RESULT mirror.verify_million %.3g s target<=1.2\n", best)
}
