// Package policy turns HCL text into compiled policies. It promises that a
// bundle which loads means exactly what it says: what is misspelt, of the wrong
// type, unreachable or not supported by this version is refused with
// diagnostics that name the place and the remedy, all in one run (I10).
//
// # Conditions
//
// A condition is parsed by hclsyntax, its macros are put in place, and it is
// compiled to closures over event.Event that say false, true or error. cty
// evaluation of the same expression is the oracle: tests hold both equal, and
// at run time it is asked whenever a closure says error, so that the verdict is
// HCL's own and the diagnostics are exact. Parts that have no closure are
// evaluated through cty.
//
// "&&" and "||" of HCL are symmetrical: an operand that decides hides an error
// of the other. So operands may be evaluated in any order and lazily without
// changing a result, and closures evaluate cheap operands first.
//
// # Digests
//
// The digest of a bundle is SHA-256 over "provost/bundle/v1" 0x00 and then, for
// each file that gives the bundle its meaning (policy files and the files of
// lists) in byte order of names: length of the name as 8 bytes big-endian, the
// name relative to the bundle with forward slashes, length of the contents as 8
// bytes big-endian, the contents.
//
// The digest of a policy is SHA-256 over "provost/policy/v1" 0x00 and the source
// text of its block, and then, in byte order, each list, local and macro that
// it uses, directly or not: its name (as in "macro.is_shell") and its source
// text, for a list its type and values; each string preceded by its length as
// 8 bytes big-endian.
//
// # Limits
//
// A bundle has at most MaxFiles files of MaxFileSize bytes; a list file at most
// MaxListSize bytes. Only regular files inside the bundle directory are read.
// Nesting and size of expressions are limited before they are parsed.
package policy
