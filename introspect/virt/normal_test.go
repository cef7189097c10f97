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
		"too large":    "<domain>" + strings.Repeat("x", MaxXMLBytes) + "</domain>",
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

// TestPathsAreBounded: each path repeats what stands above it, so a text of less than
// a megabyte could fill the memory of the daemon.
func TestPathsAreBounded(t *testing.T) {
	long, kids := strings.Repeat("k", 20000), strings.Repeat("<b/>", 19000)
	deep := ""
	for range 60 {
		deep += "<a name='" + strings.Repeat("n", 120) + "'>"
	}
	for name, text := range map[string]string{
		"key":        "<domain><metadata><a name='" + long + "'>" + kids + "</a></metadata></domain>",
		"name":       "<domain><metadata><" + long + ">" + kids + "</" + long + "></metadata></domain>",
		"name space": "<domain><metadata xmlns='" + long + "'>" + kids + "</metadata></domain>",
		"attributes": "<domain xmlns:x='" + long + "'>" + strings.Repeat("<b x:a='1' x:b='2'/>", 9000) + "</domain>",
		"depth":      "<domain>" + deep + kids + strings.Repeat("</a>", 60) + "</domain>",
		"no lines":   "<domain>" + deep + strings.Repeat("<b passwd='x'/>", 19000) + strings.Repeat("</a>", 60) + "</domain>",
	} {
		n := Normalize(text)
		size := 0
		for _, l := range n.Lines {
			size += len(l.Path) + len(l.Value)
		}
		if size > maxNormalBytes || n.Empty() || len(n.Lines) == 0 && n.Error == "" {
			t.Errorf("%s: %d bytes of %d bytes, %q", name, size, len(text), n.Error)
		}
	}
	a := Normalize("<domain><metadata><a name='" + long + "1'>x</a><a name='" + long + "2'>y</a></metadata></domain>")
	b := Normalize("<domain><metadata><a name='" + long + "1'>x</a><a name='" + long + "3'>y</a></metadata></domain>")
	if c, _ := Diff(&a, &b); len(c) != 2 {
		t.Errorf("long keys are not kept apart: %v", c)
	}
}

// secretive holds a secret in each place where people put them.
const secretive = `<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>
  <metadata><c:data xmlns:c='urn:c'><c:root_password>geheim1</c:root_password><c:api_key v='geheim2'/><c:tokens><c:t>geheim3</c:t></c:tokens><c:kept at="a&amp;b">kept1</c:kept></c:data></metadata>
  <sysinfo type='smbios'><system><entry name='serial'>ds=nocloud;s=http://u:geheim4@h/</entry><entry name='family'>kept2</entry></system>
    <oemStrings><entry>io.example:geheim5</entry></oemStrings></sysinfo>
  <devices><disk type='network'><source protocol='https' name='kept3'><cookies><cookie name='sid'>geheim6</cookie></cookies></source><target dev='vda'/></disk>
    <graphics type='vnc' passwd='geheim7' port='5900'/></devices>
  <qemu:commandline><qemu:arg value='-fw_cfg'/><qemu:arg value='name=opt/x,string=geheim8'/>
    <qemu:arg value='type=11,value=io.systemd.credential:a=geheim9'/><qemu:arg value='kept4'/><qemu:env name='KEPT5' value='geheim0'/></qemu:commandline>
</domain>`

// TestConcealedConfiguration: what is sealed of a configuration shows no secret, and all
// else is as libvirt gave it.
func TestConcealedConfiguration(t *testing.T) {
	text, err := Conceal(secretive)
	if err != nil {
		t.Fatal(err)
	}
	seen, raw := Normalize(text), Normalize(secretive)
	for name, s := range map[string]string{"text": text, "normal form": fmt.Sprint(seen.Lines), "normal form of libvirt's text": fmt.Sprint(raw.Lines)} {
		if strings.Contains(s, "geheim") {
			t.Errorf("%s shows a secret: %s", name, s)
		}
		for _, kept := range []string{"kept1", "kept2", "kept3", "kept4", "KEPT5", "5900"} {
			if !strings.Contains(s, kept) {
				t.Errorf("%s has lost %s: %s", name, kept, s)
			}
		}
	}
	if seen.Digest != raw.Digest {
		t.Errorf("a look finds a difference to what was concealed:\n%v\n%v", seen.Lines, raw.Lines)
	}
	if same, err := Conceal(strings.ReplaceAll(someDomain, "hunter2", concealed)); err != nil || !strings.Contains(same, "<link state='up'/></interface>") {
		t.Errorf("%v %s", err, same)
	}
	plain := "<?xml version='1.0'?><domain><!-- c --><name>a&lt;b</name><os><bootmenu enable='yes'/></os></domain>"
	if same, err := Conceal(plain); err != nil || same != plain {
		t.Errorf("what holds no secret is changed to %s: %v", same, err)
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
		if c, err := Conceal(text); err == nil && n.Error == "" && strings.HasPrefix(text, "<domain>") && !strings.ContainsAny(text, "!:?&") && Normalize(c).Digest != n.Digest {
			t.Errorf("concealing changes more than values: %s", c)
		}
	})
}
