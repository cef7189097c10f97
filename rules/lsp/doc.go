// Package lsp is a language server for policy files, which an editor starts and
// talks to on its standard input and output. It promises that what it shows is
// what the loader says: diagnostics come from loading the whole bundle with the
// texts that are not saved yet in the place of files, and completion and hover
// from the tables that conditions are checked by.
//
// Requests are served one after the other. One goroutine loads bundles; while
// it does, any number of changes make one more load. Messages, documents and
// bundles are bounded as the loader's files are. Only directories of files that
// the editor opens are read, and nothing is written: changes are handed to the
// editor.
//
// Only cmd/provost imports it.
package lsp
