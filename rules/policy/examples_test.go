package policy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Every bundle in examples/ loads without a warning and is in canonical form.
func TestExamplesLoad(t *testing.T) {
	dirs, err := filepath.Glob("../../examples/policies/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no example bundles: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			b, diags := Load(dir)
			for _, d := range diags {
				t.Errorf("%s %s: %s %s", DetailOf(d).Code, d.Subject, d.Summary, d.Detail)
			}
			if b == nil || len(b.Policies) == 0 {
				t.Fatal("no policies")
			}
			for _, p := range b.Policies {
				if p.Condition != nil && len(p.Condition.Slow()) > 0 {
					t.Errorf("policy %s has parts without a closure: %v", p.Name, p.Condition.Slow())
				}
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*.hcl"))
			for _, f := range files {
				data, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				if string(hclwrite.Format(data)) != string(data) {
					t.Errorf("%s is not in canonical format", f)
				}
			}
		})
	}
}
