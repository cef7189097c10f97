// Package policytest runs the tests beside a policy bundle: events in, verdicts
// expected. It promises that a test is judged as a live VM is: events are real
// entries, built of the fields that policies name, and go through rules.Engine
// with a state of their own. Each entry is judged twice, as the daemon does and
// by asking every policy, and a difference fails the test.
//
// # Coverage
//
// A bundle is covered when every operand of "&&", "||", "!" and "?:" in its
// conditions, exceptions, steps and targets was seen true and false in tests of
// its policy, every use of a macro likewise, every target was seen to select a
// VM and to leave one out, and every policy gave a verdict. Parts of a macro
// count once for the bundle, wherever the macro stands. What reads no event has
// one value and does not count.
//
// # Mutants
//
// An operator of a condition is needed when turning it around makes a test fail.
package policytest
