package domain

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseUUID(t *testing.T) {
	const want = "0123abcd-4567-89ef-0123-456789abcdef"
	for _, tc := range []struct {
		in string
		ok bool
	}{
		{want, true},
		{strings.ToUpper(want), true},
		{"", false},
		{want[:35], false},
		{want + "0", false},
		{strings.ReplaceAll(want, "-", ""), false},
		{"0123abcd-4567-89ef-0123-456789abcdeg", false},
		{"0123abcd4-567-89ef-0123-456789abcdef", false},
		{strings.Repeat("x", 1<<20), false},
	} {
		u, err := ParseUUID(tc.in)
		if (err == nil) != tc.ok {
			t.Errorf("ParseUUID(%.40q): error %v, want ok=%v", tc.in, err, tc.ok)
		}
		if err == nil && u.String() != want {
			t.Errorf("ParseUUID(%q) = %s", tc.in, u)
		}
		if err != nil && (!u.IsZero() || len(err.Error()) > 200) {
			t.Errorf("ParseUUID(%.40q) gives %s and an error of %d bytes", tc.in, u, len(err.Error()))
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	for s := State(-1); s < 10; s++ {
		in := Domain{UUID: UUID{1, 2, 15: 3}, Name: "a", ID: 4, State: s, Persistent: true}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out Domain
		if err := json.Unmarshal(b, &out); err != nil || out != in {
			t.Errorf("%s gives %+v, %v", b, out, err)
		}
	}
	var s State
	for _, bad := range []string{"", "Running", "state-", "state-1x", "state-01"} {
		if err := s.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("state %q was taken", bad)
		}
	}
}

func FuzzParseUUID(f *testing.F) {
	f.Add("0123abcd-4567-89ef-0123-456789abcdef")
	f.Add("----")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUUID(s)
		if err != nil {
			return
		}
		if !strings.EqualFold(u.String(), s) {
			t.Errorf("ParseUUID(%q) = %s", s, u)
		}
	})
}
