package probe

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTraceable(t *testing.T) {
	if was, err := traceable(nil); !was || err != nil {
		t.Errorf("without the switch: %v, %v", was, err)
	}
	for _, x := range []struct {
		before, after string
		was           bool
	}{{"1\n", "1\n", true}, {"0\n", "1\n", false}, {"0", "1\n", false}} {
		path := filepath.Join(t.TempDir(), "ftrace_enabled")
		if err := os.WriteFile(path, []byte(x.before), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		was, err := traceable(f)
		after, rerr := os.ReadFile(path)
		if was != x.was || err != nil || rerr != nil || string(after) != x.after {
			t.Errorf("%q becomes %q: %v, %v", x.before, after, was, err)
		}
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := traceable(dir); err == nil {
		t.Error("a switch that cannot be read is no error")
	}
}
