package policytest

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/rules/policy"
)

// The first policy of the author's guide and its test are what the guide says:
// they load without a warning, and the test fails when the condition is cut as the
// guide warns.
func TestGuide(t *testing.T) {
	data, err := os.ReadFile("../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$").FindAllStringSubmatch(string(data), -1)
	if len(blocks) < 2 {
		t.Fatalf("the guide has %d blocks of HCL", len(blocks))
	}
	run := func(policies string) *Report {
		files := fstest.MapFS{"a.policy.hcl": {Data: []byte(policies)}, "a.policytest.hcl": {Data: []byte(blocks[1][1])}}
		b, diags := policy.LoadFS(files)
		if b == nil || len(diags) > 0 {
			t.Fatal(diags)
		}
		tests, diags := policy.LoadTestsFS(files, b)
		if tests == nil || len(diags) > 0 {
			t.Fatal(diags)
		}
		r, err := Run(context.Background(), b, tests, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := run(blocks[0][1]); r.Passed != 1 || !r.OK() {
		t.Errorf("%d tests passed\n%s", r.Passed, failures(r))
	}
	whole, half := blocks[0][1], ` || endswith(file.target_path, "/.ssh/authorized_keys")`
	if !strings.Contains(whole, half) {
		t.Fatal("the guide's condition has no second half any more")
	}
	if r := run(strings.Replace(whole, half, "", 1)); r.Failed != 1 {
		t.Error("the test passes without the half of the condition that it is for")
	}
}
