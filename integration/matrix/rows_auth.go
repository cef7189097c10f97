package matrix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// Numbers of audit's messages.
const (
	msgUserAuth  = 1100
	msgUserStart = 1105
	msgUserEnd   = 1106
	msgUserLogin = 1112
	msgAddUser   = 1114
	msgUserCmd   = 1123
	msgService   = 1130
)

// pamModules are those that the act's su is made of.
const pamModules = "/lib/x86_64-linux-gnu/security/"

func init() {
	pid := func(c *Checker) Field { return Is("process.pid", c.Number("pid")) }
	register(
		Row{ID: 200, Name: "fail to log in over the network", Do: func(e *Env) error {
			return sayAs(e, "sshd", 0, msgUserLogin, `op=login acct=6576696C2075736572 exe="/usr/sbin/sshd" hostname=h addr=192.0.2.7 terminal=ssh res=failed`)
		}, Check: func(c *Checker) {
			c.One(record.ClassAuthLogin, pid(c), Is("auth.operation", "login"), Is("auth.success", false), Is("auth.account", "evil user"),
				Is("auth.address", "192.0.2.7"), Is("auth.hostname", "h"), Is("auth.terminal", "ssh"), Is("auth.executable", "/usr/sbin/sshd"),
				Is("auth.message_type", msgUserLogin), Starts("auth.text", "op=login acct="), Is("process.executable", c.Text("dir")+"/sshd"),
				Is("auth.session_id", c.Number("session")), Is("result_known", false))
		}},
		Row{ID: 201, Name: "log in by a password", Do: func(e *Env) error {
			return sayAs(e, "login", 0, msgUserAuth, `op=PAM:authentication grantors=pam_unix acct="alice" exe="/bin/su" hostname=? addr=? terminal=/dev/tty1 res=success`,
				msgUserStart, `op=PAM:session_open acct="alice" exe="/bin/login" terminal=/dev/tty1 res=success`,
				msgUserEnd, `op=PAM:session_close acct="alice" exe="/bin/login" terminal=/dev/tty1 res=success`)
		}, Check: func(c *Checker) {
			// What the message says of the program does not decide what it is.
			in := c.One(record.ClassAuthLogin, pid(c), Is("auth.operation", "authenticate"), Is("auth.success", true), Is("auth.account", "alice"), Is("auth.terminal", "/dev/tty1"))
			begin := c.One(record.ClassAuthSession, pid(c), Is("auth.operation", "session_open"), Is("auth.account", "alice"), Is("auth.success", true))
			end := c.One(record.ClassAuthSession, pid(c), Is("auth.operation", "session_close"), Is("auth.account", "alice"))
			c.Order(in, begin, end)
			c.None(record.ClassAuthSu)
		}},
		Row{ID: 202, Name: "run a command as another user", Do: func(e *Env) error {
			return sayAs(e, "sudo", 0, msgUserCmd, `cwd="/home/alice" cmd=6C73202F726F6F74 exe="/usr/bin/sudo" terminal=pts/0 res=success`)
		}, Check: func(c *Checker) {
			c.One(record.ClassAuthSudo, pid(c), Is("auth.operation", "command"), Is("auth.command", "ls /root"), Is("auth.success", true), Is("auth.terminal", "pts/0"))
		}},
		Row{ID: 203, Name: "invent a login without the right to", Do: func(e *Env) error {
			return sayAs(e, "sshd", 1000, msgUserLogin, `op=login acct="root" res=success`)
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessExit, pid(c), Is("exit.code", 0)) // it was sent
			c.None(record.ClassAuthLogin)
		}},
		Row{ID: 204, Name: "add an account", Do: func(e *Env) error {
			return sayAs(e, "useradd", 0, msgAddUser, `op=adding user id=1001 exe="/usr/sbin/useradd" res=success`, msgService, `unit=x res=success`)
		}, Check: func(c *Checker) {
			c.One(record.ClassAuthAccount, pid(c), Is("auth.operation", "user_add"), Is("auth.account", "#1001"), Is("auth.success", true))
			// What services say is no login.
			for _, class := range []record.Class{record.ClassAuthLogin, record.ClassAuthSudo, record.ClassAuthSu, record.ClassAuthSession, record.ClassAuthAuthenticate} {
				c.None(class)
			}
		}},
		Row{ID: 205, Name: "change the user with Debian's su", Do: realSu, GuestOnly: "su writes the machine's records of logins",
			Programs: []string{"/usr/bin/su", pamModules + "pam_unix.so", pamModules + "pam_rootok.so", pamModules + "pam_permit.so"},
			Check: func(c *Checker) {
				by := []Field{Is("process.pid", c.Number("good")), Is("process.executable", "/usr/bin/su"), Is("auth.account", "nobody"), Is("auth.success", true)}
				c.Order(c.One(record.ClassAuthSu, by, Is("auth.operation", "authenticate")),
					c.One(record.ClassAuthAccount, by, Is("auth.operation", "account")),
					c.One(record.ClassAuthSession, by, Is("auth.operation", "session_open")),
					c.One(record.ClassAuthSession, by, Is("auth.operation", "session_close")))
				c.One(record.ClassAuthSu, Is("process.pid", c.Number("bad")), Is("auth.operation", "authenticate"), Is("auth.account", "root"), Is("auth.success", false),
					Is("process.credentials.uid", 65534), Has("process.flags", record.ProcessSetuid))
				c.N(2, record.ClassAuthSu)
			}},
	)
	registerSub("audit", auditSub)
}

// sayAs has a program of a name say something to audit.
func sayAs(e *Env, name string, uid uint32, messages ...any) error {
	if err := e.Copy(e.Path(name)); err != nil {
		return err
	}
	session, err := os.ReadFile("/proc/self/sessionid")
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(session)), 10, 32)
	if err != nil {
		return err
	}
	e.Fact("session", n)
	args := []string{name, "sub", "audit"}
	for _, m := range messages {
		args = append(args, fmt.Sprint(m))
	}
	c := &exec.Cmd{Path: "./" + name, Args: args}
	if uid != 0 {
		c = as(c, uid)
	}
	if err := e.RunCmd(c); err != nil {
		return err
	}
	if !c.ProcessState.Success() {
		return fmt.Errorf("%s ended with %s", name, c.ProcessState)
	}
	return nil
}

// auditSub sends what libaudit would: pairs of a number and a text.
func auditSub(args []string) int {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	for i := 0; err == nil && i+1 < len(args); i += 2 {
		var kind uint64
		if kind, err = strconv.ParseUint(args[i], 10, 16); err != nil {
			break
		}
		text := args[i+1] + "\x00"
		b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(text)))
		b = binary.NativeEndian.AppendUint16(b, uint16(kind))
		b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
		b = binary.NativeEndian.AppendUint32(b, uint32(i+1))
		b = binary.NativeEndian.AppendUint32(b, 0)
		err = unix.Sendto(s, append(b, text...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// realSu has PAM say what it says: root becomes nobody, and nobody fails to
// become root.
func realSu(e *Env) error {
	if err := os.MkdirAll("/etc/pam.d", 0o755); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"/etc/pam.d/su": "auth sufficient pam_rootok.so\nauth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
		"/etc/shadow":   "root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	good := exec.Command("/usr/bin/su", "nobody", "-s", "/bin/true")
	if out, err := good.CombinedOutput(); err != nil {
		return fmt.Errorf("su: %w: %s", err, out)
	}
	e.Fact("good", good.Process.Pid)
	if err := os.Chmod("/usr/bin/su", 0o755|os.ModeSetuid); err != nil {
		return err
	}
	bad := exec.Command("/usr/bin/su", "root", "-c", "true")
	bad.Stdin = bytes.NewReader([]byte("wrong\n"))
	bad.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := bad.CombinedOutput()
	if err == nil {
		return errors.New("su took a wrong password")
	}
	if !strings.Contains(string(out), "Authentication failure") {
		return fmt.Errorf("su with a wrong password: %w: %s", err, out)
	}
	e.Fact("bad", bad.Process.Pid)
	return nil
}
