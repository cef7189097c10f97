package policy

import "testing"

func TestAttackTechniques(t *testing.T) {
	if n := len(attackTechniques); n != 679 {
		t.Errorf("%d techniques", n)
	}
	for id, want := range map[string]bool{"T1059": true, "T1059.004": true, "T1543.002": true, "T1059.099": false, "T1059.000": false, "T9999": false} {
		if attackTechniques[id] != want {
			t.Errorf("%s: %v", id, !want)
		}
	}
}
