package proof

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/provostd/provost/chain/record"
)

const (
	// FirstShard is the shard of every log that was never split.
	FirstShard = 1

	maxHostID = 253
)

// Origin is the parsed name of a log. Its text is the first line of every
// checkpoint of the log and the name of the log's verifier key:
//
//	<host>/log/<shard>                          host log
//	<host>/vm/<uuid>/<incarnation>/<shard>      VM log
//
// The layout is part of the format and must not change.
type Origin struct {
	HostID      string
	Domain      string // UUID of the domain, lower case; empty for a host log
	Incarnation uint64 // from 1; 0 for a host log
	Shard       uint32 // from 1
}

// IsHost reports whether o names a host log.
func (o Origin) IsHost() bool { return o.Domain == "" }

// String returns the origin's text.
func (o Origin) String() string {
	if o.IsHost() {
		return fmt.Sprintf("%s/log/%d", o.HostID, o.Shard)
	}
	return fmt.Sprintf("%s/vm/%s/%d/%d", o.HostID, o.Domain, o.Incarnation, o.Shard)
}

// VMPrefix returns what the origins of all VM logs of a host begin with.
func VMPrefix(hostID string) string { return hostID + "/vm/" }

// HostOrigin returns the origin of a host's first host log.
func HostOrigin(hostID string) string { return Origin{HostID: hostID, Shard: FirstShard}.String() }

// VMOrigin returns the origin of the first shard of a VM log. uuid is in the
// usual form of 36 characters, in lower case; incarnation counts from 1.
func VMOrigin(hostID, uuid string, incarnation uint64) string {
	return Origin{HostID: hostID, Domain: uuid, Incarnation: incarnation, Shard: FirstShard}.String()
}

// ParseOrigin parses the text of an origin. An error wraps record.ErrReject.
func ParseOrigin(s string) (Origin, error) {
	bad := func(why string) (Origin, error) {
		return Origin{}, fmt.Errorf("parse log origin %q: %s: %w", s, why, record.ErrReject)
	}
	if len(s) > 2*maxHostID {
		return Origin{}, fmt.Errorf("parse log origin of %d bytes: too long: %w", len(s), record.ErrReject)
	}
	parts := strings.Split(s, "/")
	if err := CheckHostID(parts[0]); err != nil {
		return bad("its first part is no host id")
	}
	o := Origin{HostID: parts[0]}
	switch {
	case len(parts) == 3 && parts[1] == "log":
	case len(parts) == 5 && parts[1] == "vm":
		if !isUUID(parts[2]) {
			return bad("its third part is not a UUID in lower case")
		}
		n, err := strconv.ParseUint(parts[3], 10, 63)
		if err != nil || n == 0 {
			return bad("its fourth part is not an incarnation, a number from 1")
		}
		o.Domain, o.Incarnation = parts[2], n
	default:
		return bad("want <host>/log/<shard> or <host>/vm/<uuid>/<incarnation>/<shard>")
	}
	shard, err := strconv.ParseUint(parts[len(parts)-1], 10, 32)
	if err != nil || shard == 0 {
		return bad("its last part is not a shard, a number from 1")
	}
	o.Shard = uint32(shard)
	if o.String() != s {
		return bad("its numbers must be decimal without leading zeros or signs")
	}
	return o, nil
}

// CheckHostID reports whether s can name a host: letters, digits, dots,
// hyphens and underscores, at most 253 bytes, such as "kvm1.example".
func CheckHostID(s string) error {
	if s == "" || len(s) > maxHostID {
		return fmt.Errorf("check host id: %d bytes, want 1 to %d: %w", len(s), maxHostID, record.ErrReject)
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return fmt.Errorf("check host id %q: %q is not allowed, use letters, digits, '.', '-' and '_': %w", s, c, record.ErrReject)
		}
	}
	if s[0] == '.' || s[0] == '-' || s[len(s)-1] == '.' {
		return fmt.Errorf("check host id %q: must not begin with '.' or '-' or end with '.': %w", s, record.ErrReject)
	}
	return nil
}

// isUUID reports whether s is a UUID in its usual lower-case form.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}
