package daemon

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// APIConfig says where the daemon listens, and what one reader may cost.
type APIConfig struct {
	Socket string `hcl:"socket,optional"` // control; default /run/provost/provostd.sock
	// Group may use the socket like root; empty: only root.
	Group string `hcl:"group,optional"`
	// Listen is the address on this host of metrics and of the logs' tiles,
	// which hold no payloads. Default 127.0.0.1:9477; "off": none.
	Listen string `hcl:"listen,optional"`
	// Tokens is the file of bearer tokens. Default /etc/provost/tokens.
	Tokens            string  `hcl:"tokens,optional"`
	RequestsPerSecond float64 `hcl:"requests_per_second,optional"` // of one identity, over TLS; default 20
	ExpensiveRequests int     `hcl:"expensive_requests,optional"`  // of one identity at once; default 4
	// ExpensiveRequestsAll is of all identities together, over TLS; default 32, or
	// twice expensive_requests where that is more.
	ExpensiveRequestsAll int `hcl:"expensive_requests_all,optional"`
	Connections          int `hcl:"connections,optional"` // to one listener; default 256
}

// ListenerConfig is a listener for others than this host: TLS, and nothing
// else.
type ListenerConfig struct {
	Address     string `hcl:"address,label"`
	Certificate string `hcl:"certificate"`        // chain, PEM
	Key         string `hcl:"key"`                // of it, PEM
	ClientCA    string `hcl:"client_ca,optional"` // CAs of client certificates, PEM; empty: none are taken
	// ClientCRL are files of revocation lists of these CAs, PEM or DER; empty: none
	// of their certificates is revoked.
	ClientCRL []string `hcl:"client_crl,optional"`
	Tokens    bool     `hcl:"tokens,optional"` // bearer tokens are taken
}

// IdentityConfig is somebody with a client certificate.
type IdentityConfig struct {
	Name         string   `hcl:"name,label"`
	Role         string   `hcl:"role"`
	Domains      []string `hcl:"domains,optional"` // UUIDs that a tenant sees
	Certificates []string `hcl:"certificates"`     // subjects: dns:, email:, uri:, cn:

	role access.Role
}

func (c *Config) completeAPI(v *validator) {
	if c.API == nil {
		c.API = &APIConfig{}
	}
	def(&c.API.Socket, client.DefaultSocket)
	def(&c.API.Listen, "127.0.0.1:9477")
	def(&c.API.Tokens, "/etc/provost/tokens")
	v.path("api.socket", c.API.Socket)
	v.path("api.tokens", c.API.Tokens)
	if c.API.Listen != "off" {
		v.localAddress("api.listen", c.API.Listen)
	}
	if c.API.RequestsPerSecond < 0 || c.API.ExpensiveRequests < 0 || c.API.ExpensiveRequestsAll < 0 || c.API.Connections < 0 {
		v.bad("api", "Limit is negative", "requests_per_second, expensive_requests, expensive_requests_all and connections are numbers above zero; leave them out for the defaults.")
	}
	if each := cmp.Or(c.API.ExpensiveRequests, access.DefaultExpensive); c.API.ExpensiveRequestsAll > 0 && c.API.ExpensiveRequestsAll < 2*each {
		v.bad("api.expensive_requests_all", "Limit of all is too small", fmt.Sprintf("It is %d, and expensive_requests, what one identity may have, is %d: want at least twice that, so that one cannot keep all others out.", c.API.ExpensiveRequestsAll, each))
	}
	certificates := c.completeListeners(v)
	c.completeIdentities(v, certificates)
}

// localAddress takes addresses of this host only: what is served there is
// neither encrypted nor does it ask who reads it.
func (v *validator) localAddress(setting, address string) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		v.bad(setting, "Listen address cannot be used", fmt.Sprintf("%v. Write an address such as 127.0.0.1:9477, or \"off\".", err))
		return
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		v.bad(setting, "Listen address is not of this host alone", fmt.Sprintf("%q would serve plain HTTP, which anybody on the way can read and change, to whoever connects. "+
			"Write a loopback address such as 127.0.0.1:9477, and for others a block listener %q with a certificate and its key.", address, address))
	}
}

// completeListeners checks the blocks, and reports whether any takes client
// certificates. The files are read at the start.
func (c *Config) completeListeners(v *validator) (certificates bool) {
	seen := map[string]bool{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if _, _, err := net.SplitHostPort(l.Address); err != nil {
			v.bad("listener", "Listen address cannot be used", fmt.Sprintf("%v. Write an address such as 0.0.0.0:9478.", err))
		}
		if seen[l.Address] {
			v.bad("listener", "Listener has two blocks", fmt.Sprintf("%s is described twice; keep one of the blocks.", l.Address))
		}
		seen[l.Address] = true
		v.path("listener.certificate", l.Certificate)
		v.path("listener.key", l.Key)
		for _, name := range l.ClientCRL {
			v.path("listener.client_crl", name)
		}
		if len(l.ClientCRL) > access.MaxRevocationFiles || len(l.ClientCRL) > 0 && l.ClientCA == "" {
			v.bad("listener", "Revocation lists cannot be used", fmt.Sprintf("%s has %d files in client_crl; want at most %d, and client_ca, whose certificates they revoke.", l.Address, len(l.ClientCRL), access.MaxRevocationFiles))
		}
		if l.ClientCA != "" {
			v.path("listener.client_ca", l.ClientCA)
			certificates = true
		} else if !l.Tokens {
			v.bad("listener", "Listener lets nobody in", fmt.Sprintf("%s neither takes client certificates nor tokens. Set client_ca, or tokens = true.", l.Address))
		}
	}
	return certificates
}

func (c *Config) completeIdentities(v *validator, certificates bool) {
	names, subjects := map[string]bool{}, map[string]bool{}
	for i := range c.Identities {
		id := &c.Identities[i]
		for d := range id.Domains {
			id.Domains[d] = strings.ToLower(id.Domains[d])
		}
		var err error
		if id.role, err = access.CheckIdentity(id.Name, id.Role, id.Domains); err != nil {
			v.bad("identity", "Identity cannot be used", err.Error()+".")
		}
		if names[id.Name] {
			v.bad("identity", "Identity has two blocks", fmt.Sprintf("%q is described twice; keep one of the blocks.", id.Name))
		}
		names[id.Name] = true
		if len(id.Certificates) == 0 || !certificates {
			v.bad("identity", "Identity is known to no listener", fmt.Sprintf("%s needs subjects of its client certificate in certificates, and a listener with client_ca.", id.Name))
		}
		for _, s := range id.Certificates {
			if err := access.CheckSubject(s); err != nil {
				v.bad("identity.certificates", "Subject cannot be used", err.Error()+".")
			}
			if subjects[s] {
				v.bad("identity.certificates", "Subject is that of two identities", fmt.Sprintf("%q would be ambiguous, and is refused; keep one.", s))
			}
			subjects[s] = true
		}
	}
}

// identities are those that are known by client certificates.
func (c *Config) identities() []access.Certified {
	var all []access.Certified
	for _, id := range c.Identities {
		all = append(all, access.Certified{Identity: access.Identity{Name: id.Name, Role: id.role, Domains: id.Domains}, Subjects: slices.Clone(id.Certificates)})
	}
	return all
}
