package proof

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// TestWriterKeepsReadersLimits: what is written can be read, at every limit
// and right beside it.
func TestWriterKeepsReadersLimits(t *testing.T) {
	archive, _ := evidence(t)
	b, err := ReadBundle(bytes.NewReader(archive), int64(len(archive)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := b.members()
	if err != nil {
		t.Fatal(err)
	}
	largest := 0
	for _, f := range files {
		largest = max(largest, len(f.data))
	}
	for off := -1; off <= 1; off++ {
		for name, l := range map[string]Limits{
			"bytes":   {Bytes: int64(len(archive) + off)},
			"members": {Members: len(files) + off},
			"member":  {Member: int64(largest + off)},
		} {
			var out bytes.Buffer
			werr := writeBundle(&out, b, l)
			_, rerr := ReadBundle(bytes.NewReader(archive), int64(len(archive)), l)
			if (werr == nil) != (rerr == nil) || (werr == nil) != (off >= 0) {
				t.Errorf("%s %+d: written %v, read %v", name, off, werr, rerr)
			}
			if werr != nil && (!errors.Is(werr, record.ErrReject) || out.Len() != 0) {
				t.Errorf("%s %+d: %d bytes written, then %v", name, off, out.Len(), werr)
			}
		}
	}
	// With the default limits too: a payload as large as no reader takes.
	b.Entries[1].Opening = make([]byte, 64<<20+1)
	var out bytes.Buffer
	if err := WriteBundle(&out, b); !errors.Is(err, record.ErrReject) || out.Len() != 0 {
		t.Fatalf("%d bytes written, then %v", out.Len(), err)
	}
}

// TestArchiveSize holds the size that is foretold to the size that is written,
// on both sides of where an archive gets another directory.
func TestArchiveSize(t *testing.T) {
	for _, n := range []int{0, 1, 100, 1<<16 - 2, 1<<16 - 1, 1 << 16} {
		files := make([]member, n)
		for i := range files {
			files[i] = member{fmt.Sprint("events/", i), make([]byte, i%7)}
		}
		var out bytes.Buffer
		if err := writeArchive(&out, files); err != nil {
			t.Fatal(err)
		}
		if got := archiveSize(files); got != int64(out.Len()) {
			t.Errorf("%d members: %d bytes foretold, %d written", n, got, out.Len())
		}
	}
}
