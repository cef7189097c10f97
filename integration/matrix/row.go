package matrix

import (
	"context"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// Row is one act and what must be sealed of it.
type Row struct {
	ID   int
	Name string
	// Do acts, as root, in a process and a directory of its own.
	Do func(*Env) error
	// Check holds the sealed records of the act to what they must say.
	Check func(*Checker)
	// As is the number of an earlier row whose act this row checks too, in the
	// place of one of its own.
	As int
	// Host does what the host's side does in a row. It calls act, which does Do
	// in the guest, once. Zero value: act is called and nothing else done.
	Host func(ctx context.Context, h Host, act func() (Facts, error)) error
	// Tracepoint says what is different in mode tracepoint. Zero value: nothing.
	Tracepoint Expectation
	// GuestOnly is the reason why the act is not done natively: it would touch
	// the machine outside the namespaces that an act can have of its own.
	GuestOnly string
	// Programs are programs and libraries of this machine that the guest must
	// have, with all that they are linked with.
	Programs []string
	// Needs are kernel modules that the guest must have loaded.
	Needs []string
	// Spare are kernel modules that lie in /lib/modules of the guest, not loaded.
	Spare []string
}

// Host is what the host's side of a row can do.
type Host interface {
	// StopReading stops whoever reads the agent's channel, and Read lets it go on.
	StopReading(context.Context) error
	Read(context.Context) error
	// RestartAgent ends the agent, starts it again and waits for its first record.
	RestartAgent(context.Context) error
	// Settle waits until what happens now is sealed: until then, a queue that an
	// act has filled may take in nothing of the next.
	Settle(context.Context) error
	// Shell runs a script in the guest, outside the row.
	Shell(ctx context.Context, script string) error
}

// Expectation is what a row must yield in mode tracepoint.
type Expectation struct {
	gaps  []gap
	check func(*Checker)
}

type gap struct {
	class record.Class
	text  string
}

// Gap expects that the agent's signed hooks record owns up to not seeing the
// act: the class has no hook, or its limit holds the text.
func Gap(class record.Class, text string) Expectation {
	return Expectation{gaps: []gap{{class, text}}}
}

// And is both expectations together.
func (e Expectation) And(o Expectation) Expectation {
	e.gaps = append(slices.Clip(e.gaps), o.gaps...)
	if o.check != nil {
		e.check = o.check
	}
	return e
}

// Other expects what another check says.
func Other(check func(*Checker)) Expectation { return Expectation{check: check} }

var rows []Row

// register adds rows; files of rows call it from an init function.
func register(more ...Row) {
	for _, r := range more {
		if slices.ContainsFunc(rows, func(o Row) bool { return o.ID == r.ID }) {
			panic(fmt.Sprintf("matrix: row %d is there twice", r.ID))
		}
		rows = append(rows, r)
	}
}

// Rows are all rows by number.
func Rows() []Row {
	return slices.SortedFunc(slices.Values(rows), func(a, b Row) int { return a.ID - b.ID })
}

// Find returns the row of a number.
func Find(id int) (Row, error) {
	for _, r := range rows {
		if r.ID == id {
			return r, nil
		}
	}
	return Row{}, fmt.Errorf("find row: there is none of number %d; act -list lists them", id)
}

// Modules are the kernel modules that the rows need, to load and to have.
func Modules() (load, spare []string) {
	for _, r := range Rows() {
		load, spare = append(load, r.Needs...), append(spare, r.Spare...)
	}
	slices.Sort(load)
	slices.Sort(spare)
	return slices.Compact(load), slices.Compact(spare)
}

// Sub is a program that an act can start: "act sub NAME ARG...". It returns the
// exit status.
type Sub func(args []string) int

var subs = map[string]Sub{
	"nop":  func([]string) int { return 0 },
	"code": func(args []string) int { return len(args) },
}

// registerSub adds a program for acts.
func registerSub(name string, s Sub) {
	if subs[name] != nil {
		panic("matrix: program " + name + " is there twice")
	}
	subs[name] = s
}

// RunSub runs a program of an act.
func RunSub(name string, args []string) (int, error) {
	s := subs[name]
	if s == nil {
		return 0, fmt.Errorf("run program of an act: there is no %q", name)
	}
	return s(args), nil
}
