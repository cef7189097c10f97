package api

import (
	"fmt"
	"os"
)

// tempFile returns a file without a name: it is gone when it is closed, or
// when the daemon dies.
func tempFile() (*os.File, error) {
	f, err := os.CreateTemp("", "provost-export-")
	if err != nil {
		return nil, fmt.Errorf("make room for the export: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make room for the export: %w", err)
	}
	return f, nil
}
