// Package rules judges entries: one entry of a VM log in, verdicts out. It
// promises I5: an Engine has no clock and does no IO, and what it decides
// depends on the bundle, its options, the State of that one log and the entry.
// The same entries, in order, give the same verdicts, also when the State was
// saved and restored in between; so the log alone can be replayed.
//
// # Verdicts
//
// All policies that match fire, in order of name; none shadows another. A
// verdict is to be sealed before anything is done about it (I2), as class
// ClassOf(v). Verdicts with an Error are of class policy.error: the policy
// could not be decided for the entry, which is never taken for "no match".
//
// The mode of a verdict is the weakest of policy, bundle, VM and host. In audit
// the actions are recorded (WouldHave) and must not be done.
//
// A verdict without actions and with Suppressed reports, at the end of a
// cooldown, what was swallowed in it. It comes with the first entry whose host
// time is past the end: time is what entries say.
//
// # No feedback
//
// Entries which policies caused are judged only by policies whose "on" names
// policy.* or approval.* types, and what those cause by none: no verdict can lead to itself.
//
// # Windows
//
// Thresholds, sequences, first_seen, limits of one VM and escalations remember
// what was before. Time is the host's monotone time of the entries. Each window
// holds its keys in order of use, at most as many as its policy says; beyond that,
// and beyond keyBytes for each of them, it gives up the one that was not used for
// longest, and all windows of a VM hold at most MaxWindowBytes. What was given up is
// told as policy.error, once a minute for each window. A window survives a new
// bundle where its StateDigest stays the same.
//
// What windows hold of an entry goes with the entry's payload when it is erased.
//
// # State
//
// A State belongs to one VM log and to one goroutine at a time. It holds what
// the log said about the domain, the windows, and the cooldowns, at most MaxKeys of
// them: beyond that the one longest not used is given up, which is reported. Its
// saved form, version 4, all integers big-endian, strings and lists preceded by
// a length of 4 bytes, flags one byte. An index is that of an entry of the log, in the
// lower 40 bits; above it stands the number of the shard where that is an earlier one:
//
//	magic and version "PVRS" 0x04
//	a next shard has what was remembered                flag, 4
//	begun in a shard before, policies not named yet     flag, 4
//	next leaf index     8 bytes
//	host monotone time  8 bytes
//	host wall time      8 bytes, the newest sealed
//	uuid, name, state   strings
//	tags                list of strings
//	metadata            list of pairs of strings, in order of keys
//	given up since the last report   8 bytes
//	time of that report 8 bytes
//	cooldowns           list, longest unused first, each:
//	  state digest of the policy  32 bytes
//	  key                         16 bytes
//	  end                          8 bytes, host monotone time
//	  suppressed                   8 bytes
//	  last cause: index            8 bytes
//	  last cause: leaf hash       32 bytes
//	  last cause: class            2 bytes
//	  policy                      string
//	exceptions          list, in order of policies and names, each:
//	  policy, name                strings
//	  matches covered              8 bytes
//	  end that was told            8 bytes, Unix nanoseconds, 0 for none
//	windows             list, in order of state digests, those that say nothing left out, each:
//	  state digest                32 bytes
//	  policy                      string
//	  of a first_seen              flag
//	  neither keys nor contents are made of words   flag, 4
//	  begin of its learning        8 bytes, host monotone time
//	  given up since the last report, time of that report   8 bytes each
//	  keys              list, longest unused first, each:
//	    key                       16 bytes
//	    newest event: host monotone time, index   8 bytes each
//	    events of a first step in a row           8 bytes
//	    counted         list, oldest first: host monotone time 8, index 8, value 16
//	    sequence        list, by number of steps done less one, each a list of attempts,
//	                    those that got there first first, each:
//	      first event: host monotone time   8 bytes
//	      events of the next step so far    8 bytes
//	      values           list: number 8, as a number 8, string
//	      steps            list: index 8, events 8
//	approvals           list, in order of loading, each:
//	  statement                   string
//	  signers that count           4 bytes
//	  loaded by: index             8 bytes
//	  uses                         8 bytes
//	verdicts that a late approval would close, list, oldest first, each:
//	  policy                      string
//	  cause: index                 8 bytes
//	  cause: leaf hash            32 bytes
//	  cause: class                 2 bytes
//	  end of the grace             8 bytes, host monotone time
//	  1 and the verdict's index (8) and leaf hash (32), or 0: not sealed yet
//	ids of approvals that were revoked and not loaded, list of strings, oldest first;
//	before version 4 left out where there are none
//	what the next shard begins with, in this form, preceded by its length; 0 for none    4
//
// # Shards
//
// An entry log.closed that names a next log ends what is remembered in its own: it
// waits for State.Continue, with which the next shard begins. The same entries of all
// shards give the same verdicts as one log would, but for what is sealed behind the
// end of a shard, which counts in that alone. Until the new log names its policies
// nothing is dropped or reported.
//
// Version 3, which lacks what is marked with 4, version 2, which has a flag and at most one attempt in place of each list of attempts,
// and version 1, which lacks wall time, exceptions, windows and approvals, are read, too.
//
// # Approvals
//
// An entry approval.loaded makes a signed statement known (rules/approval): the
// host has verified its signatures before it sealed it. What a policy with an
// approval block matches and one covers gives no verdict but a use, class
// approval.used. Policy time for validity is the newest wall time sealed, which
// never goes back. Where an approval comes behind a verdict, within the policy's grace, the
// cause is looked at again (from memory, or by State.Recall): a use of class approval.used_late names
// the verdict and closes its alert; the verdict stays.
package rules
