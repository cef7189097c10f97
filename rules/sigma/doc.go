// Package sigma converts Sigma detection rules to policies. It promises that a
// policy which it writes judges the events of this product as the rule judges
// its log source, is in canonical format and loads without an error: it gives
// its own output to the loader of rules/policy and never returns what that
// refuses. A rule that it cannot convert whole is returned with the reason,
// and an alternative that it leaves out is named; nothing is dropped silently.
//
// # Log sources
//
// A rule of Sigma speaks of the records of one log source. Each kind of event
// that stands for such a record is a view: its event types, what the rule's
// fields are in it, and what is fixed (that an audit record about an execution
// has the type EXECVE). The condition of a rule is worked out for each view.
// Where it comes to "never", the view makes no policy; views with the same
// outcome make one together; others make policies of their own, whose names end
// in what the view is about. So one rule for files becomes one policy for
// files that are created or written and one for the new names of renamed ones.
//
// # Letters
//
// Sigma compares text without regard to case, and so do the policies. With
// Options.Cased names and paths of files and programs are compared exactly, as
// Linux does.
//
// # Licence
//
// Rules of the Sigma project stand under the Detection Rule License 1.1. It asks
// that author, origin and licence stay with a rule, and its author with the
// messages about its matches; the converter writes them into the comment, the
// description and the message of each policy.
//
// # Limits
//
// Rules are untrusted text: a file has at most MaxFileSize bytes, a rule
// maxValues values and conditions nest maxDepth deep.
package sigma
