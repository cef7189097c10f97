package policy

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/provostd/provost/rules/event"
)

func TestClock(t *testing.T) {
	for _, tc := range []struct {
		cond, time string
		want       bool
	}{
		{`between(event.time, "07:00", "19:00", "Europe/Zurich")`, "2026-11-23T06:00:00Z", true}, // 07:00 in winter
		{`between(event.time, "07:00", "19:00", "Europe/Zurich")`, "2026-11-23T05:59:59.999Z", false},
		{`between(event.time, "07:00", "19:00", "Europe/Zurich")`, "2026-11-23T18:00:00Z", false},
		{`between(event.time, "07:00", "19:00", "Europe/Zurich")`, "2026-07-01T05:00:00Z", true}, // and in summer
		{`between(event.time, "22:00", "06:00", "UTC")`, "2026-07-01T23:00:00Z", true},
		{`between(event.time, "22:00", "06:00", "UTC")`, "2026-07-01T05:59:00Z", true},
		{`between(event.time, "22:00", "06:00", "UTC")`, "2026-07-01T12:00:00Z", false},
		{`hour(event.time, "America/New_York") == 22`, "2026-11-23T03:10:00Z", true},
		{`contains(["Saturday", "Sunday"], weekday(event.time, "UTC"))`, "2026-11-22T23:59:59Z", true},
		{`contains(["Saturday", "Sunday"], weekday(event.time, "Asia/Tokyo"))`, "2026-11-22T23:59:59Z", false},
		{`between(event.reason, "00:00", "23:59", "UTC")`, "2026-11-22T23:00:00Z", false}, // no time
		{`hour(event.reason, "UTC") == 0`, "2026-11-22T23:00:00Z", false},
	} {
		b, diags := loadText(head + "policy \"p\" {\n on = [\"process.exec\", \"vm.start\"]\n condition = " + tc.cond + "\n action \"pause\" {}\n}\n")
		if b == nil {
			t.Fatal(tc.cond, diags)
		}
		c := b.Policies[0].Condition
		if len(c.Slow()) > 0 {
			t.Errorf("%s has no closure", tc.cond)
		}
		at, err := time.Parse(time.RFC3339Nano, tc.time)
		if err != nil {
			t.Fatal(err)
		}
		e := new(event.Event)
		e.SetString(event.EventTime, at.Format(time.RFC3339Nano))
		e.SetString(event.EventReason, "x")
		agree(t, tc.cond, c, e)
		if got, err := c.Eval(e); err != nil || got != tc.want {
			t.Errorf("%s at %s: %v, %v", tc.cond, tc.time, got, err)
		}
	}
}

func TestBase64Contains(t *testing.T) {
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
		for _, before := range []string{"", "a", "ab", "abc", "abcd"} {
			for _, after := range []string{"", "x", "xy", "xyz"} {
				s := "echo " + enc.EncodeToString([]byte(before+"/bin/bash -i"+after)) + " | base64 -d"
				if !base64Contains(s, "/bin/bash -i") {
					t.Errorf("not found in %q", s)
				}
			}
		}
	}
	if base64Contains("echo "+base64.StdEncoding.EncodeToString([]byte("/bin/dash -i")), "/bin/bash -i") || base64Contains("YWJj", "abc") {
		t.Error("found what is not there")
	}
}
