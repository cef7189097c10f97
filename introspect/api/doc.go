// Package api serves what a host has sealed: records, proofs, evidence bundles,
// a live stream and the logs' tiles, and carries out what operators ask for. One
// table of routes is served on every listener; package access says who asks. It
// promises that nobody learns of a log that he may not see, that no payload
// leaves before its disclosure is sealed, and that nothing is changed but what
// an operator asked for. docs/api.md is the page for its users.
package api
