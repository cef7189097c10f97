package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/provostd/provost/chain/record"
)

const (
	tokenFormat = "provost-tokens/v1"
	// tokenPrefix lets scanners for leaked secrets know a token.
	tokenPrefix = "provost_"
	tokenLength = len(tokenPrefix) + 43 // 32 bytes in base64url
	maxTokens   = 1000
	maxFile     = 1 << 20
	// MaxTokenLife is the longest that a token may be good for.
	MaxTokenLife = 10 * 365 * 24 * time.Hour
)

// Token is what the file says of one token. The token itself is told once, to
// who makes it. Its SHA-256 is kept as it is: salt and slow hashes protect
// secrets that can be guessed, and 32 random bytes cannot.
type Token struct {
	ID      string    `json:"id"` // for people, the first bytes of the digest
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Domains []string  `json:"domains,omitempty"`
	Sha256  string    `json:"sha256"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`

	role Role
	sum  [sha256.Size]byte
}

type tokenFile struct {
	Format string  `json:"format"`
	Tokens []Token `json:"tokens"`
}

var (
	nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// CheckIdentity says whether a name, a role and domains make an identity, and
// returns the role.
func CheckIdentity(name, role string, domains []string) (Role, error) {
	if !nameForm.MatchString(name) {
		return 0, fmt.Errorf("name %q cannot be used; want 1 to 64 letters, digits and . _ @ -: %w", name, record.ErrReject)
	}
	r, err := ParseRole(role)
	if err != nil {
		return 0, err
	}
	switch {
	case r == Tenant && len(domains) == 0:
		return 0, fmt.Errorf("tenant %s sees no domain; name at least one by its UUID: %w", name, record.ErrReject)
	case r != Tenant && len(domains) > 0:
		return 0, fmt.Errorf("%s %s sees every domain; domains are for tenants: %w", r, name, record.ErrReject)
	case len(domains) > 10_000:
		return 0, fmt.Errorf("%s has %d domains, the limit is 10000: %w", name, len(domains), record.ErrReject)
	}
	for _, d := range domains {
		if !uuidForm.MatchString(d) {
			return 0, fmt.Errorf("domain %q is no UUID in lower case; virsh domuuid NAME prints it: %w", d, record.ErrReject)
		}
	}
	return r, nil
}

// readTokens reads a file of tokens. One that is not there has none.
func readTokens(path string) ([]Token, error) {
	b, err := readPrivate(path, maxFile, 0o077)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	all, err := parseTokens(b)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %s: %w", path, err)
	}
	return all, nil
}

func parseTokens(b []byte) ([]Token, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var f tokenFile
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	if f.Format != tokenFormat || dec.More() || len(f.Tokens) > maxTokens {
		return nil, fmt.Errorf("want one object of format %s with at most %d tokens: %w", tokenFormat, maxTokens, record.ErrReject)
	}
	seen := map[string]bool{}
	for i := range f.Tokens {
		t := &f.Tokens[i]
		sum, err := hex.DecodeString(t.Sha256)
		if err != nil || len(sum) != sha256.Size || t.ID != idOf(sum) || seen[t.Sha256] {
			return nil, fmt.Errorf("token %q: its digest cannot be used, or stands twice: %w", t.ID, record.ErrReject)
		}
		t.sum, seen[t.Sha256] = [sha256.Size]byte(sum), true
		if t.role, err = CheckIdentity(t.Name, t.Role, t.Domains); err != nil {
			return nil, fmt.Errorf("token %q: %w", t.ID, err)
		}
		if t.Expires.IsZero() {
			return nil, fmt.Errorf("token %q has no end: %w", t.ID, record.ErrReject)
		}
	}
	return f.Tokens, nil
}

func idOf(sum []byte) string { return hex.EncodeToString(sum[:6]) }

// ListTokens returns the tokens of a file.
func ListTokens(path string) ([]Token, error) { return readTokens(path) }

// CreateToken adds a token to a file, which is made if it is not there, and
// returns the text that is to be handed over. It is not kept anywhere.
func CreateToken(path, name, role string, domains []string, now time.Time, life time.Duration) (text string, t Token, err error) {
	for i := range domains {
		domains[i] = strings.ToLower(domains[i])
	}
	if _, err := CheckIdentity(name, role, domains); err != nil {
		return "", t, fmt.Errorf("create token: %w", err)
	}
	if life <= 0 || life > MaxTokenLife {
		return "", t, fmt.Errorf("create token: it would be good for %s; want more than nothing and at most %s: %w", life, MaxTokenLife, record.ErrReject)
	}
	secret := make([]byte, 32)
	rand.Read(secret) // it ends the program where it fails
	text = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(text))
	t = Token{ID: idOf(sum[:]), Name: name, Role: role, Domains: slices.Compact(slices.Sorted(slices.Values(domains))), Sha256: hex.EncodeToString(sum[:]),
		Created: now.UTC().Truncate(time.Second), Expires: now.Add(life).UTC().Truncate(time.Second)}
	err = changeTokens(path, func(all []Token) ([]Token, error) {
		if len(all) >= maxTokens {
			return nil, fmt.Errorf("there are %d tokens, the limit; revoke some: %w", len(all), record.ErrReject)
		}
		return append(all, t), nil
	})
	if err != nil {
		return "", Token{}, fmt.Errorf("create token: %w", err)
	}
	return text, t, nil
}

// RevokeToken takes a token, by its id, or all of a name out of a file, and
// returns them. A daemon that runs notices with the next request.
func RevokeToken(path, idOrName string) (gone []Token, err error) {
	err = changeTokens(path, func(all []Token) ([]Token, error) {
		kept := all[:0]
		for _, t := range all {
			if t.ID == idOrName || t.Name == idOrName {
				gone = append(gone, t)
			} else {
				kept = append(kept, t)
			}
		}
		if len(gone) == 0 {
			return nil, fmt.Errorf("no token has the id or name %q: %w", idOrName, record.ErrReject)
		}
		return kept, nil
	})
	if err != nil {
		return nil, fmt.Errorf("revoke token: %w", err)
	}
	return gone, nil
}

// changeTokens replaces a file of tokens as a whole, one process at a time.
func changeTokens(path string, change func([]Token) ([]Token, error)) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	all, err := readTokens(path)
	if err != nil {
		return err
	}
	if all, err = change(all); err != nil {
		return err
	}
	b, err := json.MarshalIndent(tokenFile{Format: tokenFormat, Tokens: slices.Concat([]Token{}, all)}, "", "  ")
	if err != nil {
		return err
	}
	if len(b) >= maxFile {
		return fmt.Errorf("%s would have %d bytes, the limit is %d; revoke tokens, or name fewer domains: %w", path, len(b), maxFile, record.ErrReject)
	}
	f, err := os.CreateTemp(dir.Name(), ".tokens-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there when it was renamed
	// Stopping before the rename leaves the old file and a stray one, behind it
	// the new file.
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return dir.Sync()
}
