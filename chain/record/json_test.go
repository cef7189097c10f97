package record

import (
	"encoding/json"
	"testing"
)

// TestJSON holds the forms that scripts depend on, and that no class is left
// without one.
func TestJSON(t *testing.T) {
	m := &Event{
		Process: &Process{Pid: 7, Executable: []byte("/bin/sh"), Args: [][]byte{[]byte("sh"), {0xff, '/'}}, Sha256: []byte{0xab, 1}},
		Network: &Network{DestinationIp: []byte{127, 0, 0, 1}, DestinationPort: 22},
	}
	got, err := JSON(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"network":{"destination_ip":"127.0.0.1","destination_port":22},` +
		`"process":{"args":["sh","base64:/y8="],"executable":"/bin/sh","pid":7,"sha256":"ab01"}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if got, _ := JSON(&AgentState{Session: 1 << 63}); got["session"] != "8000000000000000" {
		t.Errorf("session is %v", got["session"])
	}
	for _, c := range Classes() {
		if _, err := JSON(NewPayload(c)); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
}
