//go:build race

package chain_test

func init() { raceDetector = true }
