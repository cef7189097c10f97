package approval

import (
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// Matcher is the scope of an approval, compiled once. It may be used by many
// goroutines, each with an Event of its own.
type Matcher struct {
	on        event.ClassSet // empty: all
	condition *policy.Condition
	content   []string // nil: any
}

// Matcher compiles the scope of s. An error wraps record.ErrReject.
func (s *Statement) Matcher() (*Matcher, error) {
	m := &Matcher{}
	var on []record.Class
	for _, name := range s.Scope.On {
		c, err := record.ParseClass(name)
		if err != nil {
			return nil, fmt.Errorf("scope.on: %w", err)
		}
		on = append(on, c)
	}
	m.on = event.SetOf(on...)
	if s.Scope.Condition != "" {
		c, err := policy.CompileScope(s.Scope.Condition, on)
		if err != nil {
			return nil, fmt.Errorf("scope.condition: %w", err)
		}
		m.condition = c
	}
	if s.Scope.Content != nil {
		m.content = s.Scope.Content.SHA256
	}
	return m, nil
}

// Covers reports whether the scope covers an entry. What cannot be decided is
// not covered: an error is that of the condition.
func (m *Matcher) Covers(class record.Class, e *event.Event) (bool, error) {
	if !m.on.Empty() && !m.on.Has(class) {
		return false, nil
	}
	if m.content != nil {
		field := event.FileHashSHA256
		if !field.Info().Classes.Has(class) {
			field = event.ProcessHashSHA256
		}
		if sum, ok := e.Str(field); !ok || !slices.Contains(m.content, sum) {
			return false, nil
		}
	}
	if m.condition != nil && slices.ContainsFunc(paths, func(f event.Field) bool { s, _ := e.Str(f); return climbs(s) }) {
		return false, nil
	}
	return m.condition.Eval(e)
}

// paths are the names that an act itself may choose the spelling of.
var paths = []event.Field{event.FilePath, event.FileTargetPath, event.ProcessExecutable}

// climbs reports whether a path goes up by "..". Some paths are as a process passed
// them, and /etc/nginx/../shadow starts as whoever signed "/etc/nginx/" has read.
func climbs(path string) bool {
	return strings.Contains(path, "..") && slices.Contains(strings.Split(path, "/"), "..")
}

// Names reports whether the approval is for a policy.
func (s *Statement) Names(policy string) bool { return slices.Contains(s.Policies, policy) }

// Valid reports whether a moment, in Unix nanoseconds, is in the validity.
func (s *Statement) Valid(wall int64) bool { return wall >= s.NotBefore.UnixNano() && !s.Ended(wall) }

// Ended reports whether a moment, in Unix nanoseconds, is behind the validity.
// The second of not_after itself is in it.
func (s *Statement) Ended(wall int64) bool { return wall >= s.NotAfter.UnixNano()+1e9 }
