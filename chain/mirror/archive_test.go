package mirror_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// shard is a closed log with frames of an agent under two keys of the host, and its
// archive.
func shard(t testing.TB, h *host, withhold bool) (*chain.Log, []byte) {
	t.Helper()
	l := h.log(1, 1, nil)
	a := h.agent(l, 1, nil)
	a.frame(300)
	h.checkpoint(l)
	_, err := h.RotateVMKey(t.Context(), "test")
	h.must(err)
	a.frame(400)
	h.must(h.CloseLog(t.Context(), l, "it is large", proof.Origin{HostID: hostID, Domain: domain(1), Incarnation: 1, Shard: 2}.String()))
	return l, archived(t, h, l, withhold)
}

func archived(t testing.TB, h *host, l *chain.Log, withhold bool) []byte {
	t.Helper()
	var b bytes.Buffer
	begun := uint64(0)
	a, err := h.Archive(t.Context(), l, &b, chain.ArchiveOptions{Withhold: withhold, Begin: func(size uint64) error { begun = size; return nil }})
	h.must(err)
	p, _ := l.Checkpoint()
	if begun != p.Size || a.Size != p.Size || a.Root != p.Root || !bytes.Equal(a.Note, p.Note) || a.Opened == 0 {
		t.Fatalf("archived %+v, told of %d entries, want those of %s", a, begun, p.Note)
	}
	return b.Bytes()
}

func verifyArchive(t testing.TB, archive []byte, key string, opts mirror.Options) (*mirror.Report, error) {
	t.Helper()
	a, err := mirror.OpenArchive(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, err
	}
	opts.Frame = frame
	return mirror.VerifyArchive(t.Context(), a, key, opts)
}

// TestArchiveVerifies: with the host's public key alone all of a shard is proved, and
// the archive of one content has always the same bytes.
func TestArchiveVerifies(t *testing.T) {
	h := newHost(t, newKeys(t))
	l, archive := shard(t, h, false)
	if !mirror.IsArchive(bytes.NewReader(archive)) {
		t.Error("it is not taken for an archive")
	}
	r, err := verifyArchive(t, archive, h.HostLog().VerifierKey(), mirror.Options{})
	if err != nil || !r.Valid || r.Entries != l.Size() {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, want := range []string{"That log was closed by its entry 704", "All 705 entries are there", "700 entries of the guest are signed by enrolled agents in 2 frames", "705 payloads of it are what"} {
		if !strings.Contains(strings.Join(r.Proved, "\n"), want) {
			t.Errorf("it does not say %q: %q", want, r.Proved)
		}
	}
	if len(r.Unclaimed) != 1 || !strings.Contains(r.Unclaimed[0], "no policy was given") {
		t.Errorf("unclaimed: %q", r.Unclaimed)
	}
	if _, err := verifyArchive(t, archive, newHost(t, newKeys(t)).HostLog().VerifierKey(), mirror.Options{}); !errors.Is(err, record.ErrReject) {
		t.Errorf("with the key of another host: %v", err)
	}
	// Late outcomes of actions may stand behind the end.
	e, err := h.Draft(record.OriginPolicy, record.ClassPolicyOutcome, &record.Outcome{Kind: "pause", Result: "done"})
	h.must(err)
	h.append(l, e)
	again := archived(t, h, l, false)
	if r, err := verifyArchive(t, again, h.HostLog().VerifierKey(), mirror.Options{}); err != nil || r.Entries != l.Size() {
		t.Fatalf("%+v, %v", r, err)
	}

	// Without payloads that are not needed it verifies as well, and holds none.
	held := archived(t, h, l, true)
	r, err = verifyArchive(t, held, h.HostLog().VerifierKey(), mirror.Options{})
	if err != nil || r.Logs[0].Signed != 700 || r.Logs[0].Unopened < 700 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, f := range unpacked(t, held) {
		if bytes.Contains(f, []byte("/etc/file-")) {
			t.Error("payloads were to be withheld, and the archive holds some")
		}
	}
	if open, err := h.Archive(t.Context(), h.log(2, 1, nil), io.Discard, chain.ArchiveOptions{}); open != nil || !errors.Is(err, record.ErrReject) {
		t.Errorf("an open log: %v", err)
	}
}

func unpacked(t testing.TB, archive []byte) map[string][]byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if all[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// packed is an archive with the members given, the manifest first.
func packed(t testing.TB, members map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	names := []string{"shard.json"}
	for name := range members {
		if name != names[0] {
			names = append(names, name)
		}
	}
	slices.Sort(names[1:])
	for _, name := range names {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write(members[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestArchiveTampered wants every change of an archive named.
func TestArchiveTampered(t *testing.T) {
	k := newKeys(t)
	h := newHost(t, k)
	_, archive := shard(t, h, false)
	other := h.log(2, 1, nil)
	h.must(h.CloseLog(t.Context(), other, "end", ""))
	members, foreign := unpacked(t, archive), unpacked(t, archived(t, h, other, false))
	key := h.HostLog().VerifierKey()
	if _, err := verifyArchive(t, packed(t, members), key, mirror.Options{}); err != nil {
		t.Fatalf("packed again: %v", err)
	}
	for _, c := range []struct {
		name, want string
		change     func(m map[string][]byte)
	}{
		{"no evidence", "evidence.zip", func(m map[string][]byte) { delete(m, "evidence.zip") }},
		{"evidence of another log", "its checkpoint", func(m map[string][]byte) { m["evidence.zip"] = foreign["evidence.zip"] }},
		{"evidence is no bundle", "no zip archive", func(m map[string][]byte) { m["evidence.zip"] = []byte("x") }},
		{"changed evidence", "evidence.zip", func(m map[string][]byte) { m["evidence.zip"][len(m["evidence.zip"])/2] ^= 1 }},
		{"no checkpoint", "it is not there", func(m map[string][]byte) { delete(m, "checkpoint") }},
		{"other checkpoint", "its checkpoint", func(m map[string][]byte) { m["checkpoint"] = foreign["checkpoint"] }},
		{"entry", "entry", func(m map[string][]byte) { m["tile/entries/001"][100] ^= 1 }},
		{"entries gone", "entries 256 to 511 are missing", func(m map[string][]byte) { delete(m, "tile/entries/001") }},
		{"payload", "salt and payload are not what the leaf commits to", func(m map[string][]byte) { m["tile/openings/001"][60] ^= 1 }},
		{"payloads gone", "payloads of entries 0 to 255 are missing", func(m map[string][]byte) { delete(m, "tile/openings/000") }},
		{"size in the manifest", "says that it is", func(m map[string][]byte) {
			m["shard.json"] = bytes.Replace(m["shard.json"], []byte("705"), []byte("704"), 1)
		}},
		{"version", "version 2", func(m map[string][]byte) {
			m["shard.json"] = bytes.Replace(m["shard.json"], []byte(`"version": 1`), []byte(`"version": 2`), 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := map[string][]byte{}
			for name, data := range members {
				m[name] = bytes.Clone(data)
			}
			c.change(m)
			r, err := verifyArchive(t, packed(t, m), key, mirror.Options{})
			if !errors.Is(err, record.ErrReject) || r != nil && r.Valid {
				t.Fatalf("accepted: %v", err)
			}
			text := err.Error()
			if r != nil {
				var b strings.Builder
				h.must(r.WriteText(&b))
				text += b.String()
			}
			if !strings.Contains(text, c.want) {
				t.Errorf("%q is not named: %s", c.want, text)
			}
		})
	}
	// Bits that flip in the file itself.
	for at := 10; at < len(archive); at += len(archive) / 97 {
		bad := bytes.Clone(archive)
		bad[at] ^= 4
		if r, err := verifyArchive(t, bad, key, mirror.Options{}); err == nil && !harmless(t, bad, members) {
			t.Errorf("a bit at %d of %d: %+v", at, len(archive), r.Proved)
		} else if err != nil && !errors.Is(err, record.ErrReject) {
			t.Errorf("a bit at %d: it is no fault of the archive: %v", at, err)
		}
	}
}

// harmless reports whether what verification reads of an archive is as it was: tiles
// of hashes follow from the entries, and dates mean nothing.
func harmless(t testing.TB, archive []byte, members map[string][]byte) bool {
	a, err := mirror.OpenArchive(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return false
	}
	for name, want := range members {
		if strings.HasPrefix(name, "tile/0/") || strings.HasPrefix(name, "tile/1/") {
			continue
		}
		if got, err := a.Fetch(t.Context(), name, 1<<20); err != nil || !bytes.Equal(got, want) {
			return false
		}
	}
	return true
}

// TestArchiveIsTorchwoods reads an archive with torchwood's own reader of such files:
// all entries, each proven to be in the tree of the checkpoint.
func TestArchiveIsTorchwoods(t *testing.T) {
	h := newHost(t, newKeys(t))
	l, archive := shard(t, h, false)
	zips := torchwood.NewTileArchiveFS(fstest.MapFS{"000.zip": {Data: archive}})
	defer zips.Close()
	fetcher, err := torchwood.NewTileFS(zips)
	h.must(err)
	text, err := fetcher.ReadEndpoint(t.Context(), "checkpoint")
	h.must(err)
	p, err := proof.OpenCheckpoint(text, l.Verifier())
	h.must(err)
	client, err := torchwood.NewClient(fetcher)
	h.must(err)
	tree, n := tlog.Tree{N: int64(p.Size), Hash: tlog.Hash(p.Root)}, uint64(0)
	for i, entry := range client.AllEntries(t.Context(), tree, 0) {
		item, err := l.Item(uint64(i))
		h.must(err)
		if uint64(i) != n || !bytes.Equal(entry, item.LeafBytes) {
			t.Fatalf("entry %d is not that of the log", i)
		}
		n++
	}
	if err := client.Err(); err != nil || n != p.Size {
		t.Fatalf("%d entries of %d: %v", n, p.Size, err)
	}
	for i := range int64(p.Size) {
		entry, path, err := client.Entry(t.Context(), tree, i)
		h.must(err)
		h.must(tlog.CheckRecord(path, tree.N, tree.Hash, i, tlog.RecordHash(entry)))
	}
}

// FuzzArchive: an archive is rejected or verified, without a panic and in bounded
// memory.
func FuzzArchive(f *testing.F) {
	h := newHost(f, newKeys(f))
	_, archive := shard(f, h, true)
	key := h.HostLog().VerifierKey()
	f.Add(archive)
	damagedKey, damaged, _ := damagedShard(f, 40, true, damagedEntry{10, true}, damagedEntry{42, false})
	f.Add(damaged)
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, b []byte) {
		mirror.IsArchive(bytes.NewReader(b))
		for _, key := range []string{key, damagedKey} {
			r, err := verifyArchive(t, b, key, mirror.Options{})
			if err == nil && (!r.Valid || r.Entries == 0) || r != nil && len(r.Rest) > 0 && (err == nil || r.Valid || len(r.Lost) == 0) {
				t.Fatalf("%+v, %v", r, err)
			}
		}
	})
}

// TestArchiveHasPolicies: an archive holds the texts of the policies that were in force,
// which whoever verifies it is told of ahead of the entries.
func TestArchiveHasPolicies(t *testing.T) {
	h := newHost(t, newKeys(t))
	l := h.log(1, 1, nil)
	texts := map[string][]byte{"a.policy.hcl": []byte("policy \"a\" {}\n")}
	kept, gone := record.BundleDigest(texts), record.Hash{1}
	for _, digest := range []record.Hash{kept, gone, kept} {
		e, err := h.Draft(record.OriginHost, record.ClassPolicyLoaded, &record.BundleActivation{Name: "b", Digest: digest[:]})
		h.must(err)
		h.append(l, e)
	}
	h.agent(l, 1, nil).frame(300)
	h.must(h.CloseLog(t.Context(), l, "it is large", ""))
	give := func(_ context.Context, digest record.Hash) (map[string][]byte, string, error) {
		if digest != kept {
			return nil, proof.LacksKept, nil
		}
		return texts, "", nil
	}
	for withhold, want := range map[bool]map[record.Hash]string{false: {kept: "", gone: proof.LacksKept}, true: {}} {
		var b bytes.Buffer
		_, err := h.Archive(t.Context(), l, &b, chain.ArchiveOptions{Withhold: withhold, Policies: give})
		h.must(err)
		got, entries := map[record.Hash]string{}, 0
		r, err := verifyArchive(t, b.Bytes(), h.HostLog().VerifierKey(), mirror.Options{
			Evidence: func(e *proof.Bundle) error {
				for _, p := range e.Policies {
					got[p.Digest] = p.Lacks
				}
				if entries > 0 {
					t.Error("policies come behind entries")
				}
				return nil
			},
			Entry: func(mirror.Entry) error { entries++; return nil },
		})
		if err != nil || r.Entries != l.Size() || !maps.Equal(got, want) {
			t.Errorf("withheld %t: policies %v, want %v: %+v, %v", withhold, got, want, r, err)
		}
	}
	// What does not fit is left out, and the archive is made all the same.
	large := map[string][]byte{"a.policy.hcl": texts["a.policy.hcl"], "l.txt": make([]byte, mirror.MaxEvidence)}
	big := record.BundleDigest(large)
	l2 := h.log(2, 1, nil)
	e, err := h.Draft(record.OriginHost, record.ClassPolicyLoaded, &record.BundleActivation{Name: "b", Digest: big[:]})
	h.must(err)
	h.append(l2, e)
	h.must(h.CloseLog(t.Context(), l2, "it is large", ""))
	var b bytes.Buffer
	_, err = h.Archive(t.Context(), l2, &b, chain.ArchiveOptions{Policies: func(context.Context, record.Hash) (map[string][]byte, string, error) { return large, "", nil }})
	h.must(err)
	lacks := ""
	_, err = verifyArchive(t, b.Bytes(), h.HostLog().VerifierKey(), mirror.Options{Evidence: func(e *proof.Bundle) error { lacks = e.Policies[0].Lacks; return nil }})
	if err != nil || lacks != proof.LacksRoom {
		t.Errorf("a large text: %q, %v", lacks, err)
	}
}
