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
	got, err = JSON(&Event{
		File: &File{LinkTarget: []byte("../x"), Attribute: []byte("user.a"), Sha256: []byte{1}}, Kernel: &Kernel{Value: []byte("0")},
		Dns:  &DNS{Question: []byte("a.example"), Addresses: [][]byte{{1, 2, 3, 4}, {5}}, Names: [][]byte{{0xff}}},
		Auth: &Auth{Account: []byte("bob"), Address: []byte("::1"), Command: []byte("id")}, Mount: &Mount{Type: []byte("tmpfs"), Source: []byte("none")},
		Memory: &Memory{Address: 4096},
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(got); err != nil {
		t.Fatal(err)
	}
	want = `{"auth":{"account":"bob","address":"::1","command":"id"},"dns":{"addresses":["1.2.3.4","05"],"names":["base64:/w=="],"question":"a.example"},` +
		`"file":{"attribute":"user.a","link_target":"../x","sha256":"01"},"kernel":{"value":"0"},"memory":{"address":4096},"mount":{"source":"none","type":"tmpfs"}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if got, _ := JSON(&AgentStopped{Command: []byte{0xab}}); got["command"] != "ab" {
		t.Errorf("command is %v", got["command"])
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
