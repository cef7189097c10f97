package policy

import (
	"io/fs"
	"testing"
	"testing/fstest"
)

// An overlay is a file system, and what is put over it wins.
func TestOverlay(t *testing.T) {
	base := fstest.MapFS{"a.policy.hcl": {Data: []byte("old")}, "lists/x": {Data: []byte("x")}, "b": {Data: []byte("b")}}
	o := Overlay(base, map[string][]byte{"a.policy.hcl": []byte("new text"), "c.policy.hcl": []byte("c"), "lists/y": []byte("y")})
	for name, want := range map[string]string{"a.policy.hcl": "new text", "b": "b", "c.policy.hcl": "c", "lists/x": "x", "lists/y": "y"} {
		got, err := fs.ReadFile(o, name)
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
		if st, err := fs.Stat(o, name); err != nil || st.Size() != int64(len(want)) || !st.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	for dir, want := range map[string]int{".": 4, "lists": 2} {
		all, err := fs.ReadDir(o, dir)
		if err != nil || len(all) != want {
			t.Errorf("%s has %v, %v, want %d entries", dir, all, err, want)
		}
	}
	if _, err := fs.ReadFile(Overlay(nil, nil), "a"); err == nil {
		t.Error("a file of nothing was read")
	}
}
