package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
)

const (
	// maxCRL bounds a file of revocation lists, in bytes: some 200,000 entries.
	maxCRL = 8 << 20
	// maxSigners bounds what is remembered of who has signed which list.
	maxSigners = 64
)

// MaxRevocationFiles bounds the files of a listener: each is looked at with each
// handshake.
const MaxRevocationFiles = 64

// Extensions of lists that are of some certificates only (RFC 5280, 5.2.4 and
// 5.2.5): who is not in them may be revoked all the same.
var (
	deltaList   = asn1.ObjectIdentifier{2, 5, 29, 27}
	partialList = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// revocations are the revocation lists of a listener. Nil: there are none, and
// nothing is revoked. It is safe for concurrent use.
type revocations struct {
	lists []*revocationList

	mu     sync.Mutex
	signed map[signer]bool // whether who has signed a list
}

type revocationList struct {
	*x509.RevocationList
	file    string
	revoked map[string]time.Time // by serial number
}

// signer is a list and the certificate of a CA that may have signed it.
type signer struct {
	list *revocationList
	ca   [sha256.Size]byte
}

// staleError says that no list in date tells which certificates of a CA are
// revoked. Until there is one all of them are refused.
type staleError struct{ why string }

func (e *staleError) Error() string { return e.why }

// readRevocations reads the lists of files. Every CA in cas must have signed one:
// without it no certificate of that CA could ever be taken. Lists of other CAs
// are for certificates that a client shows between its own and those.
func readRevocations(files []string, cas []*x509.Certificate) (*revocations, error) {
	r := &revocations{signed: map[signer]bool{}}
	for _, name := range files {
		b, err := readBounded(name, maxCRL)
		if err != nil {
			return nil, fmt.Errorf("read revocation lists: %w", err)
		}
		if err := r.parse(name, b); err != nil {
			return nil, fmt.Errorf("read revocation lists: %s: %w: %w", name, err, record.ErrReject)
		}
	}
	for _, ca := range cas {
		if len(r.by(ca)) == 0 {
			return nil, fmt.Errorf("read revocation lists: none is signed by %q of client_ca; add its list to client_crl, or take the setting out: %w", ca.Subject, record.ErrReject)
		}
	}
	return r, nil
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes: %w", name, limit, record.ErrReject)
	}
	return b, err
}

// parse takes in a file: one list in DER, or several in PEM. A list in PEM that
// cannot be read is an error, and not text between the others: a newer list must
// not be left out unseen.
func (r *revocations) parse(name string, b []byte) error {
	begin := []byte("-----BEGIN ")
	if !bytes.Contains(b, begin) {
		return r.add(name, b)
	}
	want, got := bytes.Count(b, begin), 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return fmt.Errorf("it holds a %q, want X509 CRL only", block.Type)
		}
		if err := r.add(name, block.Bytes); err != nil {
			return err
		}
		got++
	}
	if got != want {
		return fmt.Errorf("%d of %d blocks in PEM can be read", got, want)
	}
	return nil
}

func (r *revocations) add(name string, der []byte) error {
	l, err := x509.ParseRevocationList(der)
	if err == nil && len(l.Raw) != len(der) {
		err = fmt.Errorf("%d bytes follow it", len(der)-len(l.Raw))
	}
	if err != nil {
		return fmt.Errorf("no revocation list: %w", err)
	}
	if err := complete(l); err != nil {
		return fmt.Errorf("the revocation list of %q %w", l.Issuer, err)
	}
	one := &revocationList{RevocationList: l, file: name, revoked: make(map[string]time.Time, len(l.RevokedCertificateEntries))}
	for _, e := range l.RevokedCertificateEntries {
		one.revoked[string(e.SerialNumber.Bytes())] = e.RevocationTime
	}
	l.RevokedCertificateEntries = nil
	r.lists = append(r.lists, one)
	return nil
}

// complete refuses lists that do not say of every certificate of their CA whether
// it is revoked, or not until when they say so.
func complete(l *x509.RevocationList) error {
	if !l.NextUpdate.After(l.ThisUpdate) {
		return errors.New("does not say until when it is good")
	}
	for _, x := range l.Extensions {
		switch {
		case x.Id.Equal(deltaList):
			return errors.New("holds changes only (a delta list); give whole ones")
		case x.Id.Equal(partialList):
			return errors.New("is of some certificates only; give whole ones")
		case x.Critical:
			return fmt.Errorf("has the extension %s, which is critical and not known here", x.Id)
		}
	}
	for _, e := range l.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if x.Critical {
				return fmt.Errorf("has an entry with the extension %s, which is critical and not known here", x.Id)
			}
		}
	}
	return nil
}

// by returns the lists that a CA has signed.
func (r *revocations) by(ca *x509.Certificate) (out []*revocationList) {
	sum := sha256.Sum256(ca.Raw)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lists {
		if !bytes.Equal(l.RawIssuer, ca.RawSubject) {
			continue
		}
		k := signer{l, sum}
		ok, known := r.signed[k]
		if !known {
			if len(r.signed) >= maxSigners {
				clear(r.signed)
			}
			ok = l.CheckSignatureFrom(ca) == nil
			r.signed[k] = ok
		}
		if ok {
			out = append(out, l)
		}
	}
	return out
}

// allow says whether one of the chains from a client's certificate to a CA has
// nothing revoked in it.
func (r *revocations) allow(chains [][]*x509.Certificate, now time.Time) error {
	if r == nil {
		return nil
	}
	err := errors.New("no chain leads to a CA")
	for _, chain := range chains {
		if err = r.chain(chain, now); err == nil {
			return nil
		}
	}
	return err
}

// chain checks each certificate below the last, which is believed as it is.
func (r *revocations) chain(chain []*x509.Certificate, now time.Time) error {
	for i := range len(chain) - 1 {
		if err := r.certificate(chain[i], chain[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

// certificate wants a list in date of who signed c, and c in none of these.
func (r *revocations) certificate(c, ca *x509.Certificate, now time.Time) error {
	lists, err := r.current(ca, now)
	if err != nil {
		return err
	}
	for _, l := range lists {
		if at, ok := l.revoked[string(c.SerialNumber.Bytes())]; ok {
			return fmt.Errorf("certificate %x of %q is revoked since %s", c.SerialNumber, ca.Subject, at.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// current returns the lists of a CA that are in date. None is an error.
func (r *revocations) current(ca *x509.Certificate, now time.Time) (out []*revocationList, err error) {
	stale := fmt.Sprintf("no revocation list in client_crl is signed by %q", ca.Subject)
	for _, l := range r.by(ca) {
		if why := l.outOfDate(now); why != "" {
			stale = why
		} else {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		return nil, &staleError{stale + "; until there is one no certificate of this CA is taken"}
	}
	return out, nil
}

// outOfDate says why a list tells nothing at a time, or nothing.
func (l *revocationList) outOfDate(now time.Time) string {
	switch {
	case now.After(l.NextUpdate):
		return fmt.Sprintf("the revocation list of %q in %s was good until %s, replace it with a newer one", l.Issuer, l.file, l.NextUpdate.UTC().Format(time.RFC3339))
	case now.Before(l.ThisUpdate):
		return fmt.Sprintf("the revocation list of %q in %s is good from %s on, or the clock of this host is slow", l.Issuer, l.file, l.ThisUpdate.UTC().Format(time.RFC3339))
	}
	return ""
}

// fresh returns an error where a CA has no list in date.
func (r *revocations) fresh(cas []*x509.Certificate, now time.Time) (all error) {
	if r == nil {
		return nil
	}
	for _, ca := range cas {
		_, err := r.current(ca, now)
		all = errors.Join(all, err)
	}
	return all
}
