package mirror_test

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestPruned takes entries away that the log says are pruned, and others.
func TestPruned(t *testing.T) {
	const unit = 65536
	host, one := proof.HostOrigin(hostID), proof.VMOrigin(hostID, domain(1), 1)
	for name, c := range map[string]struct {
		told  func(b *book) *record.Pruned // nil: nothing
		kept  []int                        // bundles before the minimum
		gone  int                          // bundles
		kind  mirror.Kind
		words string
		units int // how many go; 0: one
		// damaged is what the host log says to be fenced off.
		damaged *record.Damage
	}{
		"as told":    {told: func(b *book) *record.Pruned { return b.prunes(unit) }, kept: []int{0, 200}, gone: 256},
		"some of it": {told: func(b *book) *record.Pruned { return b.prunes(unit) }, kept: []int{0, 9, 10, 200}, gone: 250},
		// The second step names its own range, and the root over all.
		"in two steps": {told: func(b *book) *record.Pruned {
			p := b.prunes(2 * unit)
			p.Range.First = unit
			return p
		}, kept: []int{0, 200}, gone: 512, units: 2},
		"half of a step": {told: func(b *book) *record.Pruned {
			p := b.prunes(unit)
			p.Range.First = unit / 2
			return p
		}, kept: []int{0, 200}, gone: 256, kind: mirror.KindEntry, words: "were pruned which cannot be"},
		"nothing is told": {told: nil, kept: []int{0, 200}, gone: 256, kind: mirror.KindGap, words: "and no entry of it says that they were pruned"},
		"more than was told": {func(b *book) *record.Pruned { return b.prunes(unit) }, []int{0, 200}, 257, mirror.KindGap,
			"entries 65536 to 65791 are missing: there is no ", 0, nil},
		"a fence behind it": {func(b *book) *record.Pruned { return b.prunes(unit) }, []int{0, 200}, 257, mirror.KindGap,
			"entries 65536 to 65791 are missing: there is no logs/" + one + "/" + path("entries", 256, 256) + "; entries 65600 to 65700 are fenced off as damaged (bit rot), as entry ", 0,
			&record.Damage{Origin: one, Table: "entry", First: 65600, Last: 65700, Problem: "bit rot", Done: "fenced"}},
		"a fence and no pruning": {told: nil, kept: []int{0, 200}, gone: 256, kind: mirror.KindGap, words: "that they were pruned; entry 300 is fenced off as damaged (bit rot), as entry ",
			damaged: &record.Damage{Origin: one, Table: "entry", First: 300, Last: 300, Problem: "bit rot", Done: "fenced"}},
		"a fence of another log": {told: nil, kept: []int{0, 200}, gone: 256, kind: mirror.KindGap, words: "and no entry of it says that they were pruned",
			damaged: &record.Damage{Origin: host, Table: "entry", First: 300, Last: 300, Problem: "bit rot", Done: "fenced"}},
		"a fence that was pruned": {told: func(b *book) *record.Pruned { return b.prunes(unit) }, kept: []int{0, 200}, gone: 256,
			damaged: &record.Damage{Origin: one, Table: "entry", First: 300, Last: 300, Problem: "bit rot", Done: "fenced"}},
		"another root": {func(b *book) *record.Pruned {
			p := b.prunes(unit)
			p.Root[0] ^= 1
			return p
		}, []int{0, 200}, 256, mirror.KindFork, "what is left of them makes", 0, nil},
		"no range": {func(b *book) *record.Pruned { return &record.Pruned{What: "leaves"} }, []int{0, 200}, 256, mirror.KindEntry, "were pruned which cannot be", 0, nil},
		// The newest enrolment must stay: without it later frames are nobody's.
		"the enrolment too": {func(b *book) *record.Pruned { return b.prunes(unit) }, []int{0}, 256, mirror.KindSignature, "no enrolled key verifies the agent's signature on this frame", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t).certify()
			b := l.vm(1, 1, nil)
			key := b.enroll(1, nil)
			n := uint64(0)
			grow := func(to int) {
				for len(b.leaves) < to {
					n++
					b.records(key, key[0], n, (n-1)*100, 100, nil)
				}
			}
			grow(200 * 256)
			b.sign().quote()
			old := key
			n, key = 0, b.enroll(2, old.Public().(ed25519.PublicKey))
			grow(max(c.units, 1)*unit + 700)
			b.sign().quote()
			if c.told != nil {
				b.add(record.ClassPruned, c.told(b))
			}
			b.sign().quote()
			if c.damaged != nil {
				l.log.add(record.ClassDamage, c.damaged)
			}
			l.log.sign()
			m := l.published(func(l *record.Leaf) bool { return l.Origin == record.OriginHost })
			for i := range c.gone {
				if !slices.Contains(c.kept, i) {
					delete(m, "logs/"+one+"/"+path("entries", uint64(i), 256))
					delete(m, "logs/"+one+"/"+path("openings", uint64(i), 256))
				}
			}
			vkey, err := proof.VerifierKey(host, l.keys.HostPublic())
			l.must(err)
			r, err := verify(t, m, vkey, mirror.Options{})
			if c.kind != "" {
				named(t, r, err, c.kind, one, c.words)
				return
			}
			if err != nil {
				t.Fatal(err, r.Failures)
			}
			if text := strings.Join(r.Unclaimed, "\n"); r.Logs[1].Pruned != uint64(c.gone-len(c.kept))*256 && c.gone == 256*max(c.units, 1) || !strings.Contains(text, "that were pruned, as entry") {
				t.Errorf("%+v\n%s", r.Logs[1], text)
			}
		})
	}
}

// prunes is what a log says of its first n entries.
func (b *book) prunes(n int) *record.Pruned {
	root := record.Root(b.hashes[:n])
	return &record.Pruned{What: "leaves", Range: &record.EntryRange{Last: uint64(n - 1)}, Root: root[:], Rule: "retention"}
}
