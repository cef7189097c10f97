package virt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/introspect/domain"
)

const (
	someUUID = "462dcd6d-fb68-4a26-a96f-56eb024515b9"
	rawStart = `type=VIRT_CONTROL msg=audit(1407272465.891:6471): pid=1265 uid=0 auid=4294967295 ses=4294967295 subj=system_u:system_r:virtd_t:s0-s0:c0.c1023 msg='virt=kvm op=start reason=booted vm="vm1" uuid=` + someUUID + ` vm-pid=22527 exe="/usr/sbin/libvirtd" hostname=? addr=? terminal=? res=success'`
	oldStart = `type=VIRT_CONTROL msg=audit(1297275433.331:78): user pid=4023 uid=0 auid=500 ses=1 msg='virt=qemu op=stop reason=destroyed vm="f13" uuid=` + someUUID + `: exe="/usr/sbin/libvirtd" (hostname=?, addr=10.0.0.7, terminal=pts/0 res=failed)'`
)

func TestParseAudit(t *testing.T) {
	for name, tc := range map[string]struct {
		line             string
		ok               bool
		user, op, vm, ad string
		pid              uint32
		success          bool
	}{
		"raw":                   {rawStart, true, "0", "start", "vm1", "", 1265, true},
		"enriched":              {rawStart + "\x1dUID=\"root\" AUID=\"unset\"", true, "root", "start", "vm1", "", 1265, true},
		"logged in":             {strings.Replace(rawStart, "auid=4294967295", "auid=1000", 1) + "\x1dUID=\"root\" AUID=\"alice\"", true, "alice", "start", "vm1", "", 1265, true},
		"old kernel":            {oldStart, true, "500", "stop", "f13", "10.0.0.7", 4023, false},
		"a name in hexadecimal": {strings.Replace(rawStart, `vm="vm1"`, "vm=6D7920766D27206F703D73746F70", 1), true, "0", "start", "my vm' op=stop", "", 1265, true},
		"a field twice":         {strings.Replace(rawStart, `vm="vm1"`, `vm="vm1" op=stop`, 1), true, "0", "start", "vm1", "", 1265, true},
		"of docker":             {`type=VIRT_CONTROL msg=audit(1506321923.246:470): pid=1182 uid=0 auid=4294967295 ses=4294967295 msg='reason=api vm-pid=10657 op=resize vm=centos:7 user=origin auid=1000 exe="/usr/bin/dockerd" res=success'`, false, "", "", "", "", 0, false},
		"another kind":          {strings.Replace(rawStart, "VIRT_CONTROL", "VIRT_RESOURCE", 1), false, "", "", "", "", 0, false},
		"in another record":     {`type=USER_CMD msg=audit(1.000:1): msg='cmd=` + rawStart + `'`, false, "", "", "", "", 0, false},
		"no time":               {strings.Replace(rawStart, "1407272465.891:6471", "x", 1), false, "", "", "", "", 0, false},
		"cut off":               {rawStart[:len(rawStart)-20], false, "", "", "", "", 0, false},
		"no identity":           {strings.Replace(rawStart, someUUID, "?", 1), false, "", "", "", "", 0, false},
		"too long":              {rawStart + strings.Repeat(" ", maxAuditLine), false, "", "", "", "", 0, false},
		"empty":                 {"", false, "", "", "", "", 0, false},
	} {
		a, ok := ParseAudit(tc.line)
		if c := a.Claim; ok != tc.ok || ok && (c.User != tc.user || c.Operation != tc.op || a.Name != tc.vm || c.Pid != tc.pid || c.Success != tc.success || c.Address != tc.ad) {
			t.Errorf("%s: %v, %q %+v", name, ok, a.Name, c)
		}
	}
}

func FuzzParseAudit(f *testing.F) {
	f.Add(rawStart)
	f.Add(oldStart)
	f.Fuzz(func(t *testing.T, line string) {
		a, ok := ParseAudit(line)
		if ok && (a.UUID.IsZero() && !strings.Contains(line, "00000000-0000-0000-0000-000000000000") || a.Claim.Operation == "" || a.Claim.SizeVT() > 8*(maxText+16)) {
			t.Errorf("%+v", a)
		}
	})
}

// TestAuditIsFollowed: claims about known domains are told, with the event they
// are about, over rotation; the past, strangers and floods are not.
func TestAuditIsFollowed(t *testing.T) {
	h, now := notices(t)
	*now = time.UnixMilli(1407272466000)
	id, err := domain.ParseUUID(someUUID)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	write := func(flag int, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a := &auditor{h: h, path: path}
	defer a.close()
	write(os.O_APPEND, rawStart+"\n")
	a.open(t.Context(), 2)
	expect := func(want ...string) {
		t.Helper()
		a.round(t.Context())
		var got []string
		for _, o := range h.taken() {
			got = append(got, o.Hypervisor.Device+" "+o.Hypervisor.Status)
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	expect() // the past
	write(os.O_APPEND, rawStart+"\n")
	expect() // nobody knows the domain
	h.known[id] = Known{Domain: domain.Domain{UUID: id, Name: "vm1"}}
	write(os.O_APPEND, rawStart+"\n"+rawStart[:100])
	expect("start alone")
	a.saw(&Observation{Kind: KindLifecycle, Word: "start", Domain: domain.Domain{UUID: id}, Time: *now})
	write(os.O_APPEND, rawStart[100:]+"\n"+strings.Repeat("x", 3*maxAuditLine)+rawStart+"\n"+rawStart+"\n")
	expect("start joined", "start joined")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	expect()
	write(os.O_TRUNC, rawStart+"\n")
	expect()
	expect("start joined")
	write(os.O_TRUNC, "\n")
	expect()
	write(os.O_APPEND, rawStart+"\n")
	expect("start joined")
	write(os.O_APPEND, strings.Repeat(rawStart+"\n", 1000))
	a.round(t.Context())
	if n := len(h.taken()); n > limitBurst {
		t.Errorf("%d claims were told at once", n)
	}
}
