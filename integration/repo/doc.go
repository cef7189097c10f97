// Package repo tests the repository itself: which package may import which,
// what the programs link, that generated code is up to date, and that the
// documentation says what the code does. It holds no code of its own. Every
// failure gives the reason of the rule that was broken.
package repo
