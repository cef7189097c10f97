package daemon

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/chain/witness"
	"github.com/provostd/provost/introspect/api/client"
)

// WitnessConfig names a third party that cosigns the host log.
type WitnessConfig struct {
	Name string `hcl:"name,label"` // for people
	URL  string `hcl:"url"`        // submission prefix, c2sp.org/tlog-witness
	Key  string `hcl:"key"`        // verifier key of its cosignatures

	key proof.WitnessKey
}

// WitnessingConfig says which cosignatures are enough.
type WitnessingConfig struct {
	// Policy is a c2sp.org/tlog-policy file. Default: every witness.
	Policy  string `hcl:"policy,optional"`
	Timeout string `hcl:"timeout,optional"` // of asking one witness; default 5s

	timeout time.Duration
}

// completeWitnesses checks the blocks; the policy file is read at the start.
func (c *Config) completeWitnesses(v *validator) {
	if c.Witnessing == nil {
		c.Witnessing = &WitnessingConfig{}
	}
	if c.Witnessing.Policy != "" {
		v.path("witnessing.policy", c.Witnessing.Policy)
	}
	c.Witnessing.timeout = v.duration("witnessing.timeout", c.Witnessing.Timeout, 100*time.Millisecond, time.Minute)
	seen := map[string]bool{}
	for i := range c.Witnesses {
		w := &c.Witnesses[i]
		if err := witness.CheckURL(w.URL); err != nil {
			v.bad("witness.url", "Witness address cannot be used", err.Error()+".")
		}
		var err error
		if w.key, err = proof.NewWitnessKey(w.Name, w.Key); err != nil {
			v.bad("witness.key", "Witness key cannot be used", err.Error()+". The witness publishes it.")
			continue
		}
		if seen[w.key.ID()] || seen[w.Name] {
			v.bad("witness", "Witness has two blocks", fmt.Sprintf("%q has the name or the key of another; keep one of them.", w.Name))
		}
		seen[w.key.ID()], seen[w.Name] = true, true
	}
}

// witnesses builds the clients, and reads the policy (nil: all are needed). A
// witness that only the policy file names, with an address, is asked as well.
func (c *Config) witnesses() ([]chain.Witness, *proof.Policy, error) {
	var policy *proof.Policy
	if path := c.Witnessing.Policy; path != "" {
		text, err := readSmall(path)
		if err != nil {
			return nil, nil, fmt.Errorf("read witness policy: %w; setting witnessing.policy names it", err)
		}
		if policy, err = proof.ParsePolicy(text); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	configured := slices.Clone(c.Witnesses)
	if policy != nil {
		for _, w := range policy.Witnesses {
			known := slices.ContainsFunc(configured, func(k WitnessConfig) bool { return k.key.ID() == w.ID() })
			if w.URL != "" && !known {
				configured = append(configured, WitnessConfig{Name: w.Name, URL: w.URL, key: w.WitnessKey})
			}
		}
	}
	carrier := witnessHTTP()
	var all []chain.Witness
	for _, w := range configured {
		one, err := witness.New(witness.Config{URL: w.URL, Key: w.key, HTTP: carrier, Timeout: c.Witnessing.timeout})
		if err != nil {
			return nil, nil, fmt.Errorf("witness %q: %w", w.Name, err)
		}
		all = append(all, one)
	}
	if policy != nil && len(all) == 0 && !policy.None() {
		return nil, nil, fmt.Errorf("%s asks for witnesses and none has an address; add it behind the key, or a witness block: %w", c.Witnessing.Policy, record.ErrReject)
	}
	return all, policy, nil
}

// CheckWitnesses reads the witness policy and compares it with the witnesses.
func CheckWitnesses(c *Config) error {
	all, policy, err := c.witnesses()
	if err != nil || policy == nil {
		return err
	}
	ids := make([]string, len(all))
	for i, w := range all {
		ids[i] = w.Key().ID()
	}
	if err := policy.Reached(ids); err != nil {
		return fmt.Errorf("%s cannot be satisfied by the witnesses that are configured: %w", c.Witnessing.Policy, err)
	}
	return nil
}

// witnessHTTP carries requests to witnesses: what they may cost is bounded, and
// nobody is sent elsewhere.
func witnessHTTP() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// witnessStatus describes the witnesses for the operator; nil: there are none.
func witnessStatus(s *chain.Store) *client.Witnesses {
	all, missing, _ := s.Witnesses()
	if len(all) == 0 {
		return nil
	}
	out := &client.Witnesses{Missing: missing}
	if p, ok := s.Cosigned(); ok {
		out.Cosigned = p.Size
	}
	for _, w := range all {
		out.Witnesses = append(out.Witnesses, client.Witness{Name: w.Name, Key: w.Key, Size: w.Size, Time: w.Time, Problem: w.Problem, Disputed: w.Disputed})
	}
	return out
}
