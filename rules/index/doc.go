// Package index finds out which of many conditions may be true of an event
// without evaluating them: one look at each field that conditions ask for,
// instead of one evaluation of each condition. It promises that what it leaves
// out is false, and is no error: a condition it missed would be an attack that
// nobody hears of. (What it names may still be false: the caller evaluates it.)
//
// Each condition is filed, for each class of events that it judges, under the
// one of its guards (policy.Guard) that is expected to hold least often.
// Constants that must be equal are found in a hash table, prefixes and suffixes
// by binary search, words within texts with an automaton that reads the text
// once (Aho-Corasick), and addresses in a table of prefixes. A condition without
// guards is named for every event.
//
// Finding takes time linear in the event's texts and in what is named, and no
// memory beyond the Scratch.
package index
