package sigma

import (
	"fmt"
	"strings"

	"github.com/provostd/provost/rules/event"
)

// view is a kind of event that stands for a record of the log source.
type view struct {
	suffix string // of the policy's name
	on     []string
	fields map[string]target
	// fixed are fields that have one of these values in every such record, in
	// lower case.
	fixed map[string][]string
	// guard is what the event types do not say of the record, or nil.
	guard *node
	// words is the expression that keywords are looked for in, if there is one.
	words string
	// note says in what the events differ from the records.
	note string
}

// target is what a field of a rule is in a view.
type target struct {
	expr string
	kind event.Kind
	// path says that it is the name or path of a file or program.
	path bool
	// names translates the values that the rule may use; others never occur.
	names map[string]string
	// unset are values by which the source says that it has none.
	unset []string
}

// field makes the target that is one field of events.
func field(name string) target {
	info, ok := event.Lookup(name)
	if !ok {
		panic("no field " + name) // a mistake in the tables of this package
	}
	return target{expr: name, kind: info.Kind}
}

func pathField(name string) target {
	t := field(name)
	t.path = true
	return t
}

// actorFields are what every act of a process has, as Sysmon names them. It has
// not all of them for each kind of record; rules for other tools have.
var actorFields = map[string]target{
	"Image":     pathField("process.executable"),
	"ProcessId": field("process.pid"),
	"User":      userName,
	// Sysmon for Linux writes the user id.
	"LogonId":           field("user.id"),
	"CommandLine":       field("process.command_line"),
	"ParentImage":       pathField("process.parent.executable"),
	"ParentCommandLine": field("process.parent.command_line"),
	"ParentProcessId":   field("process.parent.pid"),
	"CurrentDirectory":  pathField("process.working_directory"),
	"sha256":            field("process.hash.sha256"),
}

// userName: the agent sends ids, and knows the name of user 0 only.
var userName = target{expr: "user.name", kind: event.KindString, names: map[string]string{"root": "root"}}

func fileFields(path string) map[string]target {
	return with(actorFields, map[string]target{"TargetFilename": pathField(path)})
}

var networkFields = with(actorFields, map[string]target{
	"SourceIp":            field("source.ip"),
	"SourcePort":          field("source.port"),
	"DestinationIp":       field("destination.ip"),
	"DestinationPort":     field("destination.port"),
	"DestinationHostname": field("destination.domain"),
	"Protocol":            field("network.protocol"),
})

func with(base, more map[string]target) map[string]target {
	m := make(map[string]target, len(base)+len(more))
	for k, v := range base {
		m[k] = v
	}
	for k, v := range more {
		m[k] = v
	}
	return m
}

// categories are the log sources that have one kind of record. Sysmon's record
// of a created file stands for one that was written over, too.
var categories = map[string][]view{
	"process_creation": {{on: []string{"process.exec"}, fields: actorFields}},
	"file_event": {
		{on: []string{"file.create", "file.modify"}, fields: fileFields("file.path")},
		{suffix: "renamed", on: []string{"file.rename", "file.link"}, fields: fileFields("file.target_path")},
	},
	"file_delete": {{on: []string{"file.delete"}, fields: fileFields("file.path")}},
	"file_rename": {{on: []string{"file.rename"}, fields: with(fileFields("file.target_path"), map[string]target{"SourceFilename": pathField("file.path")})}},
	"file_change": {{on: []string{"file.utime"}, fields: fileFields("file.path")}},
	"network_connection": {
		{on: []string{"network.connect", "network.send"}, fields: networkFields, fixed: map[string][]string{"Initiated": {"true"}}},
		{suffix: "accepted", on: []string{"network.accept"}, fields: networkFields, fixed: map[string][]string{"Initiated": {"false"}}},
	},
	"dns_query": {{on: []string{"dns.query"}, fields: with(actorFields, map[string]target{"QueryName": field("dns.question.name")})}},
}

// views returns the kinds of events that a rule speaks of.
func (r *rule) views(d *detection) ([]view, error) {
	s := r.LogSource
	category, product, service := strings.ToLower(s.Category), strings.ToLower(s.Product), strings.ToLower(s.Service)
	switch {
	case product != "" && product != "linux":
		return nil, fmt.Errorf("it is for the product %q; guests are Linux", s.Product)
	case category != "" && categories[category] != nil && service == "":
		return categories[category], nil
	case category == "" && service == "auditd":
		return auditViews(d), nil
	case service != "":
		return nil, fmt.Errorf("it reads the log of the service %q; events are those of the guest's kernel, and of logs only logins are known (auth.*)", s.Service)
	case category != "":
		return nil, fmt.Errorf("no event stands for the category %q", s.Category)
	}
	return nil, fmt.Errorf("it searches the text of any log (product %q without category and service); events have no such text", s.Product)
}
