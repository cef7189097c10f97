package rules

import (
	"fmt"

	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// Prevention is what one policy has the host prevent on a VM.
type Prevention struct {
	Policy  *policy.Policy
	Mode    policy.Mode // audit or enforce
	Prevent *policy.Prevent
}

// VMOf is what policies can know of a VM by its domain XML.
func VMOf(uuid, name, state, xml string) (event.VM, error) {
	vm := event.VM{UUID: uuid, Name: event.Normalize(name), State: state}
	if len(xml) > maxXML {
		return vm, fmt.Errorf("read what policies know of VM %s: its XML has %d bytes, the limit is %d", uuid, len(xml), maxXML)
	}
	tags, meta, err := parseMetadata([]byte(xml))
	if err != nil {
		return vm, err
	}
	vm.Tags, vm.Metadata = tags, meta
	return vm, nil
}

// Prevents returns what the policies have the host prevent on a VM, in their order.
// A policy whose target cannot be decided counts as being about it: a filter too many
// is found, one that is missing is not.
func (e *Engine) Prevents(vm *event.VM) ([]Prevention, error) {
	w := scratch.Get().(*workspace)
	defer w.release()
	ev := &w.event
	ev.LoadVM(vm)
	var all []Prevention
	var problem error
	for _, p := range e.bundle.Policies {
		mode := e.Mode(p, vm.UUID)
		if len(p.Prevent) == 0 || mode == policy.ModeOff {
			continue
		}
		about, err := p.Target.Selects(ev)
		if err != nil {
			problem = fmt.Errorf("policy %q: target: %w", p.Name, err)
		}
		if !about && err == nil {
			continue
		}
		for _, n := range p.Prevent {
			all = append(all, Prevention{p, mode, n})
		}
	}
	return all, problem
}
