package event

import (
	"errors"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// a value of each kind, other than what a missing field looks like
func someValue(f Field) any {
	switch f {
	case ProcessHashSHA256, ParentHashSHA256, FileHashSHA256, LibvirtHashSHA256:
		return strings.Repeat("ab", 32)
	case AgentKey, CommandID:
		return "00ff"
	case UserName:
		return "root"
	case DNSQuestionType:
		return "TYPE999"
	case DNSResponseCode:
		return "NXDOMAIN"
	case DNSResolvedIP:
		return []string{"192.0.2.1", "2001:db8::1"}
	case AgentUncovered, LostClasses:
		return []string{"file.close", "process.exec"}
	case LostReasons:
		return []string{"ring_full", "nested"}
	}
	if names, ok := maskNames(f); ok {
		for i, n := range names {
			if n != "" && i > 2 {
				return []string{n}
			}
		}
	}
	if e := f.Info().Enum; e != nil {
		return e[len(e)-1]
	}
	switch f.Info().Kind {
	case KindNumber:
		return uint64(7)
	case KindBool:
		return true
	case KindAddress:
		return "2001:db8::7"
	case KindStrings:
		return []string{"cafe\u0301", "b"}
	case KindProcesses:
		return []Process{{PID: 3, Start: 4, Name: "a", Executable: "/a"}, {PID: 1, Name: "init"}}
	}
	return "e\u0301 f"
}

// what a field does not come without
var besides = map[Field]map[Field]any{
	SourcePort: {SourceIP: "192.0.2.1"}, DestinationPort: {DestinationIP: "192.0.2.1"},
	NetworkTransport: {NetworkType: "ipv6"}, FileAttributeSize: {FileAttribute: "user.x"},
}

// Every field of every class that carries it can be said, alone, and is loaded
// as it was said; and no field is forgotten.
func TestDraftRoundTrip(t *testing.T) {
	for i := range Fields {
		info := &Fields[i]
		f := info.Field
		why, implied := follows[f]
		if (setters[f] == nil) != implied {
			t.Errorf("%s: has a setter: %v, follows from %q", f, setters[f] != nil, why)
			continue
		}
		carried := 0
		for _, c := range info.Classes.Classes() {
			d := NewDraft(c)
			value := someValue(f)
			err := d.Set(f, value)
			if implied {
				if err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("%s: %v", f, err)
				}
				break
			}
			if (f == VMUUID || f == VMName || f == VMState) && !setDomain.Has(c) {
				if err == nil {
					t.Errorf("%s was set in a %s event, which does not carry it of itself", f, c)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s in %s: %v", f, c, err)
				continue
			}
			for other, v := range besides[f] {
				if err := d.Set(other, v); err != nil {
					t.Errorf("%s beside %s: %v", other, f, err)
				}
			}
			_, payload, err := d.Entry()
			if err != nil {
				// The table says of whole groups that they may carry a field;
				// some kinds of payload have no place for it.
				if reason := "cannot carry " + f.String(); f != EventReason && f != LibvirtDomainID || !strings.Contains(err.Error(), reason) {
					t.Errorf("%s in %s: %v", f, c, err)
				}
				continue
			}
			carried++
			data, err := payload.MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := record.Decode(c, data); err != nil {
				t.Errorf("%s in %s: the payload does not decode: %v", f, c, err)
			}
		}
		if !implied && carried == 0 {
			t.Errorf("no class carries %s as it is said", f)
		}
	}
}

func TestDraftRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		class  record.Class
		fields []said
		want   string
	}{
		"not carried":       {record.ClassProcessExec, []said{{FilePath, "/x"}}, "no process.exec event carries file.path"},
		"wrong kind":        {record.ClassProcessExec, []said{{ProcessPID, "7"}}, "process.pid is a number"},
		"too large":         {record.ClassProcessExec, []said{{ProcessPID, uint64(1 << 40)}}, "at most 4294967295"},
		"twice":             {record.ClassProcessExec, []said{{ProcessPID, uint64(1)}, {ProcessPID, uint64(2)}}, "said twice"},
		"empty":             {record.ClassProcessExec, []said{{ProcessName, ""}}, "never empty"},
		"no address":        {record.ClassNetworkConnect, []said{{DestinationIP, "example.org"}}, `"example.org" is none`},
		"versions of IP":    {record.ClassNetworkConnect, []said{{DestinationIP, "::1"}, {SourceIP, "127.0.0.1"}}, "another version of IP"},
		"port alone":        {record.ClassNetworkConnect, []said{{DestinationPort, uint64(80)}}, "only with destination.ip"},
		"digest":            {record.ClassProcessExec, []said{{ProcessHashSHA256, "AB"}}, "64 digits"},
		"name of a user":    {record.ClassProcessExec, []said{{UserName, "mallory"}}, "say user.id"},
		"two command lines": {record.ClassProcessExec, []said{{ProcessArgs, []string{"a"}}, {ProcessCommandLine, "a"}}, "follows from process.args"},
		"contradiction":     {record.ClassFileChmod, []said{{FileMode, uint64(0o100644)}, {FileModeExecutable, true}}, "contradicts"},
		"parent":            {record.ClassProcessExec, []said{{ProcessAncestors, []Process{{Name: "a"}}}, {ParentName, "b"}}, "contradicts"},
		"capability":        {record.ClassProcessExec, []said{{CapabilitiesEffective, []string{"CAP_NONE"}}}, "CAP_SYS_ADMIN"},
		"value":             {record.ClassNetworkConnect, []said{{NetworkDirection, "out"}}, "egress, ingress"},
		"fact elsewhere":    {record.ClassFileModify, []said{{VMState, "running"}}, "vm of the test"},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDraft(c.class)
			var err error
			for _, s := range c.fields {
				if err == nil {
					err = d.Set(s.field, s.value)
				}
			}
			if err == nil {
				_, _, err = d.Entry()
			}
			if !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// Ids that are not said are those of the real user, as a process has them that
// did nothing about it.
func TestDraftIDs(t *testing.T) {
	d := NewDraft(record.ClassProcessExec)
	for f, n := range map[Field]uint64{UserID: 1000, UserGroupID: 100, UserEffectiveGroupID: 5} {
		if err := d.Set(f, n); err != nil {
			t.Fatal(err)
		}
	}
	leaf, payload, err := d.Entry()
	if err != nil {
		t.Fatal(err)
	}
	e := new(Event)
	if err := e.Load(&leaf, payload, nil); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[Field]uint64{UserEffectiveID: 1000, UserSavedID: 1000, UserFilesystemGroupID: 100, UserEffectiveGroupID: 5} {
		if n, _ := e.Num(f); n != want {
			t.Errorf("%s = %d, want %d", f, n, want)
		}
	}
	if e.Has(UserLoginID) || e.Has(ProcessSessionID) || leaf.Origin != record.OriginGuest {
		t.Error("something is said that nobody said")
	}
}
