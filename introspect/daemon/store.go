package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/provostd/provost/chain"
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

// Repair checks every row of the ledger, which no daemon may have open, and mends
// what it can.
func Repair(ctx context.Context, cfg *Config, log *slog.Logger) (*chain.Repaired, error) {
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	opts, done, err := fsckOptions(ctx, log)
	if err != nil {
		return nil, err
	}
	defer done()
	return chain.Repair(ctx, cfg.chain(k, log), opts)
}

// Fsck checks every row of the ledger, which no daemon may have open.
func Fsck(ctx context.Context, cfg *Config, log *slog.Logger) (*chain.Report, error) {
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	opts, done, err := fsckOptions(ctx, log)
	if err != nil {
		return nil, err
	}
	defer done()
	return chain.Fsck(ctx, cfg.chain(k, log), opts)
}
