package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect/api/client"
)

// KeysConfig says how long a VM-log key is used.
type KeysConfig struct {
	// Rotate is the age at which the key of the VM logs is replaced and
	// destroyed, such as "24h". Default "off": when it is asked for.
	Rotate string `hcl:"rotate,optional"`

	rotate time.Duration // 0: off
}

func (c *Config) completeKeys(v *validator) {
	if c.Keys == nil {
		c.Keys = &KeysConfig{}
	}
	def(&c.Keys.Rotate, "off")
	if c.Keys.Rotate != "off" {
		c.Keys.rotate = v.duration("keys.rotate", c.Keys.Rotate, time.Minute, 10*365*24*time.Hour)
	}
}

// rotateLook is how often the age of the key is looked at.
const rotateLook = 30 * time.Second

// rotateKeys replaces the VM-log key when it is old enough, until ctx ends. Its
// age counts from its certificate, so restarts do not prolong it.
func (d *Daemon) rotateKeys(ctx context.Context) error {
	tick := time.NewTicker(rotateLook)
	defer tick.Stop()
	for {
		if d.cfg.Keys.rotate > 0 {
			since, err := d.store.VMKeySince()
			if err != nil {
				return err
			}
			if time.Since(since) >= d.cfg.Keys.rotate {
				// The old key goes on where no new one can be made. What is worse
				// has stopped the ledger, which ends the daemon.
				if _, err := d.store.RotateVMKey(ctx, "schedule: "+d.cfg.Keys.rotate.String()); err != nil && ctx.Err() == nil {
					d.log.ErrorContext(ctx, "the VM-log key is not replaced; it is tried again", "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *Daemon) rotate(ctx context.Context, requester string) (*client.KeyEpoch, error) {
	// What was begun is carried through, whoever hangs up.
	return rotated(d.store.RotateVMKey(context.WithoutCancel(ctx), "operator: "+requester))
}

func rotated(e chain.KeyEpoch, err error) (*client.KeyEpoch, error) {
	if err != nil {
		return nil, err
	}
	return &client.KeyEpoch{Number: e.Number, Key: fmt.Sprintf("%x", e.Key), Index: e.Index}, nil
}

// RotateKeys replaces the VM-log key: it asks the daemon, or does it by itself
// where none runs.
func RotateKeys(ctx context.Context, cfg *Config, log *slog.Logger) (e *client.KeyEpoch, err error) {
	c := client.New(cfg.API.Socket)
	defer c.Close()
	if _, err := c.Status(ctx); err == nil {
		return c.RotateKeys(ctx)
	}
	err = alone(ctx, cfg, log, func(ctx context.Context, s *chain.Store) (err error) {
		e, err = rotated(s.RotateVMKey(ctx, "operator: provostd rotate-keys"))
		return err
	})
	return e, err
}
