package rules

import (
	"testing"

	"github.com/provostd/provost/rules/policy"
)

// What is prevented on a VM follows from targets and modes; a target that cannot be
// decided counts.
func TestPrevents(t *testing.T) {
	b := load(t, `
policy "one" {
  mode = "enforce"
  target {
    metadata = { zone = "restricted" }
  }
  prevent "egress" {
    allow = ["198.51.100.0/24"]
  }
}
policy "two" {
  mode = "audit"
  prevent "egress" {
    deny = ["192.0.2.1"]
  }
}
policy "three" {
  mode = "off"
  prevent "egress" {
    deny = ["192.0.2.2"]
  }
}
`)
	e := engine(t, b, Options{HostMode: policy.ModeEnforce})
	xml := `<domain><metadata><provost:vm xmlns:provost="urn:provost:vm:1"><provost:value key="zone">restricted</provost:value></provost:vm></metadata></domain>`
	for _, c := range []struct {
		xml  string
		want []string
	}{{xml, []string{"one enforce", "two audit"}}, {"<domain/>", []string{"two audit"}}} {
		vm, err := VMOf(testUUID, "web", "running", c.xml)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Prevents(&vm)
		if err != nil || len(got) != len(c.want) {
			t.Fatalf("%s: %v, %v", c.xml, got, err)
		}
		for i, p := range got {
			if s := p.Policy.Name + " " + p.Mode.String(); s != c.want[i] || p.Prevent.Kind != "egress" {
				t.Errorf("%s: %d is %s, want %s", c.xml, i, s, c.want[i])
			}
		}
	}
	if _, err := VMOf(testUUID, "web", "running", "<domain"); err == nil {
		t.Error("XML that is none is read")
	}
}
