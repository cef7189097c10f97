package probe

import (
	"bytes"
	"strings"
	"testing"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

func TestParseAudit(t *testing.T) {
	for in, want := range map[string]map[string]string{
		`op=PAM:authentication grantors=pam_unix acct="root" exe="/usr/bin/su" hostname=? addr=? terminal=/dev/pts/0 res=success`: {
			"op": "PAM:authentication", "acct": "root", "exe": "/usr/bin/su", "hostname": "", "terminal": "/dev/pts/0", "res": "success"},
		`op=login acct=6576696C2075736572 exe="/usr/sbin/sshd" hostname=h addr=192.0.2.7 terminal=ssh res=failed`: {
			"acct": "evil user", "addr": "192.0.2.7", "res": "failed"},
		`cwd="/home/u" cmd=6C73202D6C exe="/usr/bin/sudo" terminal=pts/0 res=success`: {"cmd": "ls -l", "cwd": "/home/u"},
		`op=adding user to group id=1001 exe="/usr/sbin/useradd"`:                     {"op": "adding user to group", "id": "1001"},
		`acct="a=b res=success" res=failed`:                                           {"acct": "a=b res=success", "res": "failed"},
		`res=failed res=success`:                                                      {"res": "failed"},
		`acct="no end`:                                                                {"acct": `"no`},
		`acct= x =y =  "`:                                                             {"acct": ""},
		"":                                                                            {},
		"acct=6\x00res=success":                                                       {"acct": "6", "res": ""},
		"terminal=abcd":                                                               {"terminal": "abcd"},
	} {
		got := parseAudit([]byte(in))
		for k, v := range want {
			if string(got.value(k, maxAuditValue)) != v {
				t.Errorf("%q: %s is %q, want %q", in, k, got[k], v)
			}
		}
	}
}

// The class is by what the kernel knows of the sender, not by what it says.
func TestAuth(t *testing.T) {
	for _, c := range []struct {
		message         uint16
		executable      string
		text            string
		class           record.Class
		operation       string
		success         bool
		account, remote string
	}{
		{auditUserLogin, "sshd\x00sbin\x00", `op=login acct="mallory" exe="x" addr=192.0.2.7 res=failed`, record.ClassAuthLogin, "login", false, "mallory", "192.0.2.7"},
		{auditUserAuth, "login\x00bin\x00", `op=PAM:authentication acct="a" exe="/usr/bin/su" res=success`, record.ClassAuthLogin, "authenticate", true, "a", ""},
		{auditUserAuth, "su\x00bin\x00", `acct="root" res=failed`, record.ClassAuthSu, "authenticate", false, "root", ""},
		{auditUserAuth, "screen\x00bin\x00", `acct="a" exe="/usr/bin/su" res=success`, record.ClassAuthAuthenticate, "authenticate", true, "a", ""},
		{auditUserCmd, "sudo\x00bin\x00", `cwd="/" cmd="id" res=success`, record.ClassAuthSudo, "command", true, "", ""},
		{auditUserStart, "su\x00bin\x00", `acct="a" res=1`, record.ClassAuthSession, "session_open", true, "a", ""},
		{auditUserEnd, "su\x00bin\x00", `acct="a" res=success`, record.ClassAuthSession, "session_close", true, "a", ""},
		{auditAddUser, "useradd\x00", `op=adding user id=1001 res=success`, record.ClassAuthAccount, "user_add", true, "#1001", ""},
		{1199, "x\x00", `op=something new res=success`, record.ClassAuthAccount, "something new", true, "", ""},
	} {
		d := newDecoder(newTable(nil), newGroups(nil))
		h := testHead(bpf.ProbeEventTypeEV_EXEC, 7)
		if _, err := d.decode(&h, raw(bpf.ProbeEventExec{H: h, T: bpf.ProbeEventTask{Tgid: 7, Start: 70}, PathLen: uint16(len(c.executable))}, c.executable)); err != nil {
			t.Fatal(err)
		}
		h = testHead(bpf.ProbeEventTypeEV_AUTH, 7)
		e, err := d.decode(&h, raw(bpf.ProbeEventAuth{H: h, Message: c.message, TextLen: uint16(len(c.text)), Sessionid: 3, Loginuid: 1000}, c.text))
		if err != nil {
			t.Fatal(err)
		}
		a := e.Auth
		if d.class != c.class || a.Operation != c.operation || a.Success != c.success || string(a.Account) != c.account ||
			string(a.Address) != c.remote || a.SessionId != 3 || e.Process.SessionId != 3 || e.Process.LoginUid != 1000 || e.ResultKnown || string(a.Text) != c.text {
			t.Errorf("%d %q: class %s, %v", c.message, c.text, d.class, e)
		}
	}
}

// FuzzAudit: no message makes the parser panic, give more than its bounds, or
// find success where the message has no such word.
func FuzzAudit(f *testing.F) {
	f.Add(uint16(1100), []byte(`op=PAM:authentication acct="root" exe="/usr/bin/su" hostname=? res=success`))
	f.Add(uint16(1123), []byte(`cwd="/" cmd=6C73 terminal=pts/0 res=failed`))
	f.Add(uint16(1114), []byte(strings.Repeat("a=b ", 2000)))
	f.Fuzz(func(t *testing.T, message uint16, text []byte) {
		a := authOf(message, bytes.Clone(text))
		if len(a.Account) > maxAuditValue+1 || len(a.Command) > maxAuditCommandTold || len(a.Executable) > maxAuditValue {
			t.Errorf("account of %d bytes, command of %d, executable of %d", len(a.Account), len(a.Command), len(a.Executable))
		}
		if a.Success && !bytes.Contains(text, []byte("res=")) {
			t.Errorf("success in %q", text)
		}
		if _, err := record.Encode(&record.Event{Auth: a}); err != nil {
			t.Error(err)
		}
	})
}
