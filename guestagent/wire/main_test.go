package wire

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	printResults()
	os.Exit(code)
}
