package virt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

const someDomain = `<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>g</name><memory unit='KiB'>1024</memory><currentMemory unit='KiB'>512</currentMemory>
  <metadata><p:vm xmlns:p='urn:provost:vm:1'><p:tag>prod</p:tag></p:vm></metadata>
  <features><acpi/></features>
  <devices>
    <disk type='file'><driver name='qemu' type='qcow2'/><source file='/a' index='1'/><target dev='vda' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='n'/><link state='up'/></interface>
    <channel type='unix'><source mode='bind' path='/run/7/x'/><target type='virtio' name='org.provost.0' state='connected'/></channel>
    <graphics type='vnc' port='5900' passwd='hunter2'/>
  </devices>
  <seclabel type='dynamic'><label>+64055:+64055</label></seclabel>
  <qemu:commandline><qemu:arg value='-object'/><qemu:arg value='secret,id=s,data=geheim'/></qemu:commandline>
</domain>`

func texts(changes []*record.ConfigChange) string {
	var all []string
	for _, c := range changes {
		all = append(all, record.ChangeText(c))
	}
	return strings.Join(all, "\n")
}

func TestDiffOfConfigurations(t *testing.T) {
	for name, tc := range map[string]struct {
		old, new string
		want     string
	}{
		"nothing":            {"", "", ""},
		"what changes alone": {"id='7'", "id='8'", ""},
		"the channel's path": {"/run/7/x", "/run/8/x", ""},
		"the guest's port":   {"state='connected'", "state='disconnected'", ""},
		"the balloon":        {">512<", ">600<", ""},
		"a label":            {"+64055:+64055", "+107:+107", ""},
		"a password":         {"hunter2", "hunter3", ""},
		"no password":        {" passwd='hunter2'", "", ""},
		"order":              {"name='qemu' type='qcow2'", "type='qcow2'   name='qemu'", ""},
		"a link":             {"state='up'", "state='down'", "/devices/interface[52:54:00:00:00:01]/link/@state: up -> down"},
		"a switch":           {"<acpi/>", "<acpi/><apic/>", "/features/apic: none -> present"},
		"a tag":              {">prod<", ">test<", "/metadata/{urn:provost:vm:1}vm/{urn:provost:vm:1}tag: prod -> test"},
		"a secret argument":  {"geheim", "geheimer", ""},
		"memory":             {">1024<", ">2048<", "/memory: 1024 -> 2048"},
		"a disk goes": {"<disk type='file'><driver name='qemu' type='qcow2'/><source file='/a' index='1'/><target dev='vda' bus='virtio'/></disk>", "",
			`/devices/disk[vda]: "@type=file driver/@name=qemu driver/@type=qcow2 source/@file=/a source/@index=1 target/@bus=virtio target/@dev=vda" -> none`},
		"a disk comes": {"<interface", "<disk type='block'><source dev='/dev/sdz'/><target dev='vdb'/></disk><interface",
			`/devices/disk[vdb]: none -> "@type=block source/@dev=/dev/sdz target/@dev=vdb"`},
	} {
		before, after := Normalize(someDomain), Normalize(strings.Replace(someDomain, tc.old, tc.new, 1))
		changes, omitted := Diff(&before, &after)
		if got := texts(changes); got != tc.want || omitted != 0 {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tc.want)
		}
		if (before.Digest == after.Digest) != (tc.want == "") {
			t.Errorf("%s: equal digests: %v", name, before.Digest == after.Digest)
		}
	}
}

// TestNoSecretIsKept looks for the secrets in all that is made of a configuration.
func TestNoSecretIsKept(t *testing.T) {
	f := (&raw{live: someDomain, config: someDomain, file: strings.Replace(someDomain, "hunter2", "hunter3", 1)}).facts()
	if f.File != nil {
		t.Error("another password in libvirt's file is told as a difference")
	}
	if text := fmt.Sprint(f); strings.Contains(text, "hunter") || strings.Contains(text, "geheim") {
		t.Errorf("a secret is kept: %s", text)
	}
}

// TestNormalFormIsBounded: whatever a configuration holds, what is sealed of it fits into an entry.
func TestNormalFormIsBounded(t *testing.T) {
	many := "<domain><devices>"
	for i := range 5000 {
		many += fmt.Sprintf("<disk><target dev='vd%d'/><source file='%s'/></disk>", i, strings.Repeat("x", 50))
	}
	many += "</devices></domain>"
	empty := Normalize("<domain/>")
	for name, text := range map[string]string{
		"many devices": many,
		"too deep":     strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100),
		"too large":    "<domain>" + strings.Repeat("x", maxXMLBytes) + "</domain>",
		"too many":     "<domain>" + strings.Repeat("<a b='c'/>", maxXMLLines+1) + "</domain>",
		"long value":   "<domain a='" + strings.Repeat("y", 100000) + "'/>",
		"not XML":      "<domain",
		"two roots":    "<a/><b/>",
		"entities":     `<!DOCTYPE d [<!ENTITY a "b">]><domain>&a;</domain>`,
	} {
		n := Normalize(text)
		changes, omitted := Diff(&empty, &n)
		size := 0
		for _, c := range changes {
			size += c.SizeVT()
		}
		if len(changes) == 0 || len(changes) > maxChanges || size > maxChangesBytes+maxChanges*32 {
			t.Errorf("%s: %d changes of %d bytes", name, len(changes), size)
		}
		if name == "many devices" && uint64(len(changes))+omitted != 5000 {
			t.Errorf("%d told and %d left out of 5000", len(changes), omitted)
		}
		back, _ := Diff(&n, &empty)
		if len(back) == 0 {
			t.Errorf("%s: no way back", name)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	f.Add(someDomain)
	f.Add("<a b='c'>d</a>")
	f.Fuzz(func(t *testing.T, text string) {
		n := Normalize(text)
		if text != "" && n.Empty() {
			t.Error("a configuration is as none")
		}
		if again := Normalize(text); again.Digest != n.Digest {
			t.Error("normalising is not stable")
		}
		if c, _ := Diff(&n, &n); len(c) != 0 {
			t.Errorf("differs from itself: %v", c)
		}
	})
}
