package probe

import (
	"bytes"
	"path"
	"strings"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// Which class a message is of, its decoder says; losses are told as logins.
var authKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_AUTH: {record.ClassAuthLogin, (*decoder).auth},
}

// operations are what messages are told as.
var operations = map[uint16]struct {
	class     record.Class
	operation string
}{
	auditUserAuth:      {record.ClassAuthAuthenticate, "authenticate"},
	auditUserAcct:      {record.ClassAuthAccount, "account"},
	auditUserMgmt:      {record.ClassAuthAccount, "manage"},
	auditCredAcq:       {record.ClassAuthSession, "credentials_acquire"},
	auditCredDisp:      {record.ClassAuthSession, "credentials_dispose"},
	auditCredRefr:      {record.ClassAuthSession, "credentials_refresh"},
	auditUserStart:     {record.ClassAuthSession, "session_open"},
	auditUserEnd:       {record.ClassAuthSession, "session_close"},
	auditUserChauthtok: {record.ClassAuthAccount, "password_change"},
	auditUserErr:       {record.ClassAuthAuthenticate, "error"},
	auditUserLogin:     {record.ClassAuthLogin, "login"},
	auditUserLogout:    {record.ClassAuthSession, "logout"},
	auditAddUser:       {record.ClassAuthAccount, "user_add"},
	auditDelUser:       {record.ClassAuthAccount, "user_delete"},
	auditAddGroup:      {record.ClassAuthAccount, "group_add"},
	auditDelGroup:      {record.ClassAuthAccount, "group_delete"},
	auditChgrpID:       {record.ClassAuthAccount, "group_id_change"},
	auditUserCmd:       {record.ClassAuthSudo, "command"},
	auditChuserID:      {record.ClassAuthAccount, "user_id_change"},
	auditGrpAuth:       {record.ClassAuthAuthenticate, "group_authenticate"},
	auditGrpMgmt:       {record.ClassAuthAccount, "group_manage"},
	auditGrpChauthtok:  {record.ClassAuthAccount, "group_password_change"},
	auditAcctLock:      {record.ClassAuthAccount, "account_lock"},
	auditAcctUnlock:    {record.ClassAuthAccount, "account_unlock"},
}

// authenticators are programs whose checks of a secret are told as what they
// are for. The name is that of the executable as the kernel knows it, not the
// one in the message.
var authenticators = map[string]record.Class{
	"login": record.ClassAuthLogin, "sshd": record.ClassAuthLogin, "sshd-session": record.ClassAuthLogin,
	"sshd-auth": record.ClassAuthLogin, "dropbear": record.ClassAuthLogin, "gdm-session-worker": record.ClassAuthLogin,
	"lightdm": record.ClassAuthLogin, "sddm-helper": record.ClassAuthLogin, "xdm": record.ClassAuthLogin,
	"greetd": record.ClassAuthLogin, "cockpit-session": record.ClassAuthLogin, "vsftpd": record.ClassAuthLogin,
	"xrdp-sesman": record.ClassAuthLogin, "in.rlogind": record.ClassAuthLogin, "rshd": record.ClassAuthLogin,
	"su": record.ClassAuthSu, "runuser": record.ClassAuthSu,
	"sudo": record.ClassAuthSudo, "doas": record.ClassAuthSudo, "pkexec": record.ClassAuthSudo, "sudo-rs": record.ClassAuthSudo,
}

// auth tells what a program that checks identities said.
func (d *decoder) auth(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventAuth](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventAuth](b)
	text := t.next(x.TextLen)
	if t.err != nil {
		return nil, t.err
	}
	p := d.known(&x.H)
	p.loginUID, p.sessionID = x.Loginuid, x.Sessionid // pam_loginuid sets them on the way
	e := d.actor(&x.H)
	e.Auth = authOf(x.Message, text)
	e.Auth.SessionId = x.Sessionid
	d.class = operations[x.Message].class
	if d.class == 0 {
		d.class = record.ClassAuthAccount
	}
	if x.Message == auditUserAuth {
		if c, ok := authenticators[path.Base(string(p.executable))]; ok {
			d.class = c
		}
	}
	return e, nil
}

// authOf reads a message.
func authOf(message uint16, text []byte) *record.Auth {
	text = bytes.TrimRight(cstring(text), "\n")
	t := parseAudit(text)
	a := &record.Auth{
		Operation: operations[message].operation, MessageType: uint32(message), Success: t.success(),
		Account: t.value("acct", maxAuditValue), Terminal: t.value("terminal", maxAuditValue),
		Hostname: t.value("hostname", maxAuditValue), Address: t.value("addr", maxAuditValue),
		Executable: t.value("exe", maxAuditValue), Command: t.value("cmd", maxAuditCommandTold),
		Text: text,
	}
	if a.Operation == "" {
		a.Operation = strings.ToValidUTF8(string(t.value("op", maxAuditValue)), "?")
	}
	if a.Account == nil {
		// Some programs give the number only.
		if id := t.value("id", maxAuditValue); id != nil {
			a.Account = append([]byte("#"), id...)
		}
	}
	if a.Terminal == nil {
		a.Terminal = t.value("tty", maxAuditValue)
	}
	return a
}
