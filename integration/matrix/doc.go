// Package matrix holds what a guest can do and what must be sealed of it: each
// row is an act, done in a guest by the program integration/cmd/act, and a
// check of the sealed records of that act, field by field. It promises that a
// row's check sees all that the act's processes caused and nothing else, and
// that a failed check says what was there instead.
//
// Rows live in the files rows_*.go, by area; each registers its slice. The
// numbers are stable: they name a row for ever. What a row may use:
//
//   - In the guest: [Env], with a fresh directory, raw forks ([Env.Fork]) and
//     facts for the check. Programs that an act starts are sub-commands of act
//     itself ([Sub]) or those of the guest.
//   - At the host: [Checker], with expectations of events by class and fields.
//
// The same rows run natively, in namespaces of their own, except those that
// say why they cannot.
package matrix
