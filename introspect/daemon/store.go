package daemon

import (
	"fmt"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
)

// VerifierKey returns the key that verifies the host log.
func VerifierKey(cfg *Config) (string, error) {
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		return "", fmt.Errorf("open keys: %w", err)
	}
	return keys.VerifierKey(proof.HostOrigin(cfg.HostID), k.HostPublic())
}
