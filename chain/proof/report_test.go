package proof

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/provostd/provost/chain/record"
)

// hostile is what moves the cursor, sets the title of a window, and turns the
// direction of text.
const hostile = "\x1b[2J\x1b]0;owned\a\u009b31m\u202e\r\nVALID"

// wantPrintable fails where a terminal would act on s. Lines of a report end
// where the report ends them.
func wantPrintable(t *testing.T, what, s string) {
	t.Helper()
	for _, r := range s {
		if !unicode.IsPrint(r) && r != '\n' {
			t.Fatalf("%s holds %U: %q", what, r, s)
		}
	}
	if strings.Count(s, "\nVALID") != 0 {
		t.Fatalf("%s has a line that the archive wrote: %q", what, s)
	}
}

// TestReportIsPrintable: an archive chooses names of members and origins, and
// a guest and a policy choose what they say.
func TestReportIsPrintable(t *testing.T) {
	archive, key := evidence(t)
	b, err := ReadBundle(bytes.NewReader(archive), int64(len(archive)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	b.HostOrigin, b.VMOrigin = "h"+hostile, "v"+hostile
	files, err := b.members()
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, member{"x" + hostile, []byte("stowaway")})
	var forged bytes.Buffer
	if err := writeArchive(&forged, files); err != nil {
		t.Fatal(err)
	}
	if b, err = ReadBundle(bytes.NewReader(forged.Bytes()), int64(forged.Len()), Limits{}); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(b, key, Options{Frame: testFrame})
	if err == nil {
		t.Fatal("the forgery verifies")
	}
	raw := false
	for _, f := range r.Failures {
		raw = raw || f.File == "x"+hostile
		wantPrintable(t, "failure", f.String())
		if strings.Contains(f.String(), "\n") {
			t.Errorf("a failure has two lines: %q", f)
		}
	}
	if !raw {
		t.Error("the stowaway is not reported")
	}
	wantPrintable(t, "error", err.Error())
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	wantPrintable(t, "report", text.String())
}

// TestSentencesArePrintable: what is proved about a payload quotes it.
func TestSentencesArePrintable(t *testing.T) {
	v := &verification{b: &Bundle{}, r: &Report{Valid: true}, entries: map[uint64]*opened{}}
	for i, m := range []record.Message{
		&record.Verdict{Policy: hostile, Severity: hostile, Mode: hostile, CauseClass: hostile},
		&record.Verdict{Policy: hostile, Error: hostile},
		&record.Outcome{Kind: hostile, Result: hostile, StateBefore: hostile, StateAfter: hostile},
	} {
		e := Entry{Index: uint64(i)}
		o := &opened{Entry: &e, message: m}
		if i == 1 {
			o.leaf.Header.Class = record.ClassPolicyError
		}
		v.b.Entries, v.entries[e.Index] = append(v.b.Entries, e), o
	}
	v.concludeLinks(func(format string, args ...any) {
		v.r.Proved = append(v.r.Proved, fmt.Sprintf(format, args...))
	})
	if len(v.r.Proved) != 3 {
		t.Fatalf("sentences %q", v.r.Proved)
	}
	for _, p := range v.r.Proved {
		wantPrintable(t, "sentence", p)
		if strings.Contains(p, "\n") {
			t.Errorf("two lines: %q", p)
		}
	}
	v.r.Proved = append(v.r.Proved, hostile) // whatever sentence comes to be added
	var text strings.Builder
	if err := v.r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	wantPrintable(t, "report", text.String())
}
