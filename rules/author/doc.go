// Package author holds what authors and reviewers of policies ask of a bundle as
// a whole: what differs between two of them, and a catalogue of one. It reads
// loaded bundles only, and promises the same text for the same bundles.
package author
