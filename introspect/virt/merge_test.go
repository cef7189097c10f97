package virt

import (
	"strings"
	"testing"
)

// Which images become one: ours only, never the one that is written to, and only where
// nobody needs what the lower one holds.
func TestPlanMerge(t *testing.T) {
	for _, c := range []struct{ chain, ours, needed, want string }{
		{"o1 base", "o1", "base", ""},
		{"o2 o1 base", "o1 o2", "o1", ""},                // base is not ours
		{"o2 o1 base", "o1 o2", "", ""},                  // o2 is written to
		{"o3 o2 o1 base", "o1 o2 o3", "o2", "o3: o2 o1"}, // o1 takes what o2 holds
		{"o3 o2 o1 base", "o1 o2 o3", "o1 o2", ""},
		{"o4 o3 o2 o1 base", "o1 o2 o3 o4", "o3", "o4: o3 o2 o1"},
		{"o4 o3 o2 o1 base", "o1 o2 o3 o4", "o2 o3", "o3: o2 o1"},
		{"o4 o3 o2 o1 base", "o1 o2 o3 o4", "o1 o3", "o4: o3 o2"}, // another policy keeps o1
		{"o4 o3 own o1 base", "o1 o3 o4", "", ""},                 // the owner's between them
		{"own o3 o2 o1 base", "o1 o2 o3", "", "own: o3 o2 o1"},
		{"base", "", "", ""},
	} {
		ours := map[string]uint64{}
		for i, o := range strings.Fields(c.ours) {
			ours[o] = uint64(i + 1)
		}
		got := ""
		if p := planMerge("vda", strings.Fields(c.chain), ours, strings.Fields(c.needed)); p != nil {
			got = p.Above + ":"
			for _, l := range p.Layers {
				got += " " + l.Path
				if l.Inode != ours[l.Path] {
					t.Errorf("%s: inode %d of %s", c.chain, l.Inode, l.Path)
				}
			}
		}
		if got != c.want {
			t.Errorf("%s, ours %s, needed %s: %q, want %q", c.chain, c.ours, c.needed, got, c.want)
		}
	}
}
