package probe

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTraceable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ftrace_enabled")
	if was, err := traceable(path); !was || err != nil {
		t.Errorf("without the switch: %v, %v", was, err)
	}
	for _, x := range []struct {
		before, after string
		was           bool
	}{{"1\n", "1\n", true}, {"0\n", "1\n", false}, {"0", "1\n", false}} {
		if err := os.WriteFile(path, []byte(x.before), 0o600); err != nil {
			t.Fatal(err)
		}
		was, err := traceable(path)
		after, rerr := os.ReadFile(path)
		if was != x.was || err != nil || rerr != nil || string(after) != x.after {
			t.Errorf("%q becomes %q: %v, %v", x.before, after, was, err)
		}
	}
	if _, err := traceable(t.TempDir()); err == nil {
		t.Error("a switch that cannot be read is no error")
	}
}
