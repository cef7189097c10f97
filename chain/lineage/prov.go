package lineage

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// provPrefix is the namespace of identifiers and attributes of our own.
const provPrefix = "urn:provost:lineage:"

func provID(id string) string { return "provost:" + id }

func provTime(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

// WritePROV writes the graph as W3C PROV-JSON (the member submission of 24 April
// 2013): files and addresses are entities, processes activities, user ids
// agents.
func (g *Graph) WritePROV(w io.Writer) error {
	if err := g.Check(); err != nil {
		return err
	}
	p := prov{doc: map[string]map[string]any{"prefix": {"provost": provPrefix}}, kinds: map[string]string{}}
	for _, n := range g.Nodes {
		p.kinds[n.ID] = n.Kind
		p.node(n)
	}
	for i, e := range g.Edges {
		p.edge(i, e)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(p.doc); err != nil {
		return fmt.Errorf("write PROV-JSON: %w", err)
	}
	return nil
}

type prov struct {
	doc   map[string]map[string]any
	kinds map[string]string
}

func (p *prov) put(section, id string, v map[string]any) {
	if p.doc[section] == nil {
		p.doc[section] = map[string]any{}
	}
	p.doc[section][id] = v
}

func (p *prov) node(n *Node) {
	v := map[string]any{"prov:label": n.Label(), "prov:type": map[string]string{"$": "provost:" + n.Kind, "type": "xsd:QName"}}
	set := func(name string, value any, there bool) {
		if there {
			v["provost:"+name] = value
		}
	}
	set("domain", n.Domain, n.Domain != "")
	set("path", n.Path, len(n.Path) > 0)
	set("sha256", n.Sha256, n.Sha256 != "")
	set("address", n.Address, n.Address != "")
	set("name", n.Name, len(n.Name) > 0)
	set("pid", n.Pid, n.Kind == Process)
	set("startTime", strconv.FormatUint(n.StartTime, 10), n.Kind == Process) // more than other readers' numbers hold
	set("boot", n.Boot, n.Boot != "")
	set("executable", n.Executable, len(n.Executable) > 0)
	set("commandLine", n.commandLine(), len(n.Args) > 0) // an array would be a set
	set("cut", n.Cut, len(n.Cut) > 0)
	if n.Kind != Process {
		p.put("entity", provID(n.ID), v)
		return
	}
	p.put("activity", provID(n.ID), v)
	if n.UID == nil {
		return
	}
	agent := provID(fmt.Sprintf("user-%s-%d", n.Domain, *n.UID))
	p.put("agent", agent, map[string]any{"prov:label": fmt.Sprintf("uid %d", *n.UID), "provost:domain": n.Domain, "provost:uid": *n.UID})
	p.put("wasAssociatedWith", "_:with-"+n.ID, map[string]any{"prov:activity": provID(n.ID), "prov:agent": agent})
}

// edge chooses the relation by what stands at its ends.
func (p *prov) edge(i int, e *Edge) {
	v := map[string]any{"provost:class": e.Class, "provost:count": e.Count, "provost:log": e.Last.Log,
		"provost:firstEntry": e.First.Index, "provost:lastEntry": e.Last.Index}
	from, to := provID(e.From), provID(e.To)
	id := "_:e" + strconv.Itoa(i)
	relation := ""
	switch fromProcess, toProcess := p.kinds[e.From] == Process, p.kinds[e.To] == Process; {
	case fromProcess && toProcess:
		relation = "wasInformedBy"
		v["prov:informed"], v["prov:informant"] = to, from
	case toProcess:
		relation = "used"
		v["prov:activity"], v["prov:entity"], v["prov:time"] = to, from, provTime(e.First.Time)
	case fromProcess && (e.Class == "file.delete" || e.Class == ClassAway):
		relation = "wasInvalidatedBy"
		v["prov:entity"], v["prov:activity"], v["prov:time"] = to, from, provTime(e.Last.Time)
	case fromProcess:
		relation = "wasGeneratedBy"
		v["prov:entity"], v["prov:activity"], v["prov:time"] = to, from, provTime(e.Last.Time)
	default:
		relation = "wasDerivedFrom"
		v["prov:generatedEntity"], v["prov:usedEntity"] = to, from
	}
	p.put(relation, id, v)
}
