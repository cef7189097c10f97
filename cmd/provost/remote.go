package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"os"

	"github.com/provostd/provost/introspect/api/client"
)

// remote is how to reach a daemon: over the socket of this host, or over TLS.
type remote struct {
	socket, server              string
	token, ca, certificate, key string // files
	client                      *client.Client
}

// daemon declares the flags of every command that talks to the daemon and
// returns how to reach it, of use behind connect.
func (a *app) daemon() func() *client.Client {
	r := &remote{}
	a.remote = r
	a.flags.StringVar(&r.socket, "socket", "", "unix socket of provostd; default "+client.DefaultSocket)
	a.flags.StringVar(&r.server, "server", "", "`URL` of a provostd elsewhere, https://HOST:PORT, instead of the socket")
	a.flags.StringVar(&r.token, "token-file", "", "`FILE` that holds the token for --server")
	a.flags.StringVar(&r.ca, "ca", "", "`FILE` with the certificates (PEM) that sign the server's; default: those of the system")
	a.flags.StringVar(&r.certificate, "tls-cert", "", "`FILE` with a client certificate (PEM) for --server")
	a.flags.StringVar(&r.key, "tls-key", "", "`FILE` with the key of --tls-cert (PEM)")
	return func() *client.Client { return r.client }
}

// connect makes the client that the flags ask for. It connects when it is first
// used.
func (r *remote) connect() error {
	if r.server == "" {
		if r.token+r.ca+r.certificate+r.key != "" {
			return &usageError{"--token-file, --ca, --tls-cert and --tls-key are for --server"}
		}
		if r.socket == "" {
			r.socket = client.DefaultSocket
		}
		r.client = client.New(r.socket)
		return nil
	}
	switch {
	case r.socket != "":
		return &usageError{"give --socket or --server, not both"}
	case (r.certificate == "") != (r.key == ""):
		return &usageError{"--tls-cert and --tls-key belong together"}
	case r.token == "" && r.certificate == "":
		return &usageError{"--server wants to know who asks: give --token-file, or --tls-cert and --tls-key"}
	}
	to := client.Remote{URL: r.server}
	var err error
	if to.Token, err = readToken(r.token); err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	if to.TLS, err = r.tls(tls.VersionTLS13); err != nil {
		return err
	}
	r.client, err = client.Dial(to)
	return err
}

// tls returns what the files say of both ends' certificates.
func (r *remote) tls(least uint16) (*tls.Config, error) {
	c := &tls.Config{MinVersion: least}
	ca, err := readSmall(r.ca, 1<<20, false)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if ca != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("read certificates: %s holds none in PEM", r.ca)
		}
	}
	if r.certificate != "" {
		pair, err := tls.LoadX509KeyPair(r.certificate, r.key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// readToken reads a file that holds a token and nothing else. Others than its
// owner must not be able to read it, where the system has such modes.
func readToken(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	st, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if runtime.GOOS != "windows" && st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s has mode %04o, so others can read it; chmod 0600 it", name, st.Mode().Perm())
	}
	b, err := readSmall(name, maxKey, false)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", errors.New(name + " is empty")
	}
	return token, nil
}
