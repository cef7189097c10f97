// Package lineage is what is known of how something came to be, and what came
// of it: a graph of processes, files and addresses with the entries that
// connect them. It promises to write it as a tree for people, as JSON, for
// Graphviz and as W3C PROV-JSON, with nothing a guest has named able to leave
// its place in any of them. It is pure; chain/index makes the graphs, and any
// part of the host and the command line may import it.
package lineage

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Kinds of nodes.
const (
	Process = "process"
	File    = "file"
	Address = "address"
)

// Reasons why a node is not the whole truth.
const (
	CutDepth  = "depth"  // what lies beyond it was not looked for
	CutNodes  = "nodes"  // not all that it leads to found room
	CutEvents = "events" // it has more entries than were read
)

// ClassParent is the class of an edge from a parent that no entry tells to have
// forked: the child said so.
const ClassParent = "parent"

// ClassAway is the class of an edge from a process to a file that it gave
// another name.
const ClassAway = "file.rename away"

// Text is bytes that a guest has chosen. In JSON it is a string, or "base64:"
// and its bytes where a string could not hold it.
type Text []byte

const base64Mark = "base64:"

// MarshalJSON writes t.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.Valid(t) && !strings.HasPrefix(string(t), base64Mark) {
		return json.Marshal(string(t))
	}
	return json.Marshal(base64Mark + base64.StdEncoding.EncodeToString(t))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Text) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	coded, ok := strings.CutPrefix(s, base64Mark)
	if !ok {
		*t = Text(s)
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		return fmt.Errorf("read text: %w", err)
	}
	*t = raw
	return nil
}

// Graph is the lineage of its start.
type Graph struct {
	Start    string  `json:"start"` // id of a node
	Back     bool    `json:"back"`
	Forward  bool    `json:"forward"`
	Nodes    []*Node `json:"nodes"` // the start first, then as they were found
	Edges    []*Edge `json:"edges"`
	Examined int     `json:"examined"` // entries that were read
	Behind   uint64  `json:"behind"`   // commits that are sealed and not indexed yet
}

// Node is a process, a file or an address.
type Node struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Domain string `json:"domain,omitempty"` // UUID; an address has none

	Path    Text   `json:"path,omitempty"`    // of a file
	Sha256  string `json:"sha256,omitempty"`  // of a file, as it was told last
	Address string `json:"address,omitempty"` // with a port, where one is known
	Name    Text   `json:"name,omitempty"`    // of an address, by DNS

	Pid        uint32  `json:"pid,omitempty"`
	StartTime  uint64  `json:"start_time,omitempty"` // on the guest's clock, nanoseconds
	Boot       string  `json:"boot,omitempty"`       // id, hexadecimal
	Executable Text    `json:"executable,omitempty"`
	Args       []Text  `json:"args,omitempty"`
	UID        *uint32 `json:"uid,omitempty"`

	Cut []string `json:"cut,omitempty"` // why there may be more
}

// AddCut notes a reason why there may be more.
func (n *Node) AddCut(why string) {
	for _, c := range n.Cut {
		if c == why {
			return
		}
	}
	n.Cut = append(n.Cut, why)
}

// Edge leads from a cause to what it brought about.
type Edge struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Class string `json:"class"` // of the entries
	Count uint64 `json:"count"` // of acts
	First Ref    `json:"first"`
	Last  Ref    `json:"last"`
	// Back and Forward say in which direction it was found.
	Back    bool `json:"back,omitempty"`
	Forward bool `json:"forward,omitempty"`
}

// Ref names an entry.
type Ref struct {
	Log   string `json:"log"`
	Index uint64 `json:"index"`
	Time  int64  `json:"time"` // host wall time, Unix nanoseconds
}

// FileID is the id of a file of a domain.
func FileID(domain string, path []byte) string {
	sum := sha256.Sum256(path)
	return "file-" + domain + "-" + hex.EncodeToString(sum[:])
}

// ProcessID is the id of a process of a domain.
func ProcessID(domain, boot string, pid uint32, start uint64) string {
	if boot == "" {
		boot = "0"
	}
	return fmt.Sprintf("process-%s-%s-%d-%d", domain, boot, pid, start)
}

// AddressID is the id of an address.
func AddressID(address string) string {
	return "address-" + strings.NewReplacer(":", "-", "[", "", "]", "", "/", "-").Replace(address)
}

// node returns the node with an id.
func (g *Graph) node(id string) *Node {
	for _, n := range g.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Check returns an error where g is not what Write functions can work with: an
// edge to nowhere, two nodes of one id.
func (g *Graph) Check() error {
	seen := map[string]bool{}
	for _, n := range g.Nodes {
		if seen[n.ID] {
			return fmt.Errorf("lineage: two nodes are %q", n.ID)
		}
		seen[n.ID] = true
	}
	if !seen[g.Start] {
		return fmt.Errorf("lineage: the start %q is no node", g.Start)
	}
	for _, e := range g.Edges {
		if !seen[e.From] || !seen[e.To] {
			return fmt.Errorf("lineage: an edge leads from %q to %q, which are not both there", e.From, e.To)
		}
	}
	return nil
}
