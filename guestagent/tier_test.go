package guestagent

import (
	"testing"

	"github.com/provostd/provost/chain/record"
)

// What anybody makes by the thousand leaves room to what matters more, whoever
// tells it; the agent's own findings may take all of it.
func TestShares(t *testing.T) {
	for _, c := range []struct {
		lane  uint32
		class record.Class
		want  int
	}{
		{0, record.ClassFileModify, 60}, {record.NoLane, record.ClassFileDigest, 60},
		{0, record.ClassProcessExec, 85}, {record.NoLane, record.ClassProcessDigest, 85},
		{0, record.ClassProcessCreds, 85}, {0, record.ClassKernelBPF, 85}, {0, record.ClassKernelModuleLoad, 100}, {record.NoLane, record.ClassNetworkFlow, sumShare}, {record.NoLane, record.ClassAgentTamper, 100},
	} {
		if got := shareOf(&record.Header{Lane: c.lane, Class: c.class}); got != c.want {
			t.Errorf("%s on lane %x may fill %d hundredths, want %d", c.class, c.lane, got, c.want)
		}
	}
}
