// Package chaintest helps tests to make ledgers, to crash them, and to check
// what is left. Any test may import it; no program does.
package chaintest
