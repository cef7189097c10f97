package probe

import (
	"hash/maphash"
	"path"
	"strings"
	"time"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

const (
	// maxAsked bounds the questions that wait for answers. Beyond, the oldest
	// is forgotten, and its answer is told as one that nobody asked for.
	maxAsked = 4096
	// askedFor is how long an answer may take.
	askedFor = 30 * time.Second
)

// asked is a question of DNS under way: which socket asked which server, and by
// which number. Who can guess all of that is on the way to the server, or is it.
type asked struct {
	cookie uint64
	netns  uint32
	family uint16
	port   uint16
	id     uint16
	server [16]byte
}

type underWay struct {
	name  uint64 // its hash: names are long, and anyone's
	qtype uint16
	until uint64
}

// questions are those under way. It is not safe for concurrent use.
type questions struct {
	open *lru[asked, underWay]
	seed maphash.Seed
}

func newQuestions() *questions {
	return &questions{newLRU[asked, underWay](maxAsked), maphash.MakeSeed()}
}

func askedBy(x *bpf.ProbeEventDns, m *dnsMessage) asked {
	return asked{x.Cookie, x.Netns, x.Family, x.Port, m.id, x.Server}
}

// ask notes a question.
func (q *questions) ask(x *bpf.ProbeEventDns, m *dnsMessage) {
	q.open.put(askedBy(x, m), underWay{maphash.String(q.seed, m.question), m.qtype, x.H.Time + uint64(askedFor)})
}

// answers reports whether m answers a question. It may do so twice: whoever
// asked may have asked twice.
func (q *questions) answers(x *bpf.ProbeEventDns, m *dnsMessage) bool {
	o, ok := q.open.get(askedBy(x, m))
	return ok && o.name == maphash.String(q.seed, m.question) && o.qtype == m.qtype && x.H.Time <= o.until
}

// resolvers are the programs that ask for others, whose answers reach those by
// another way than DNS. What asks 127.0.0.53 or the like asks itself.
var resolvers = map[string]bool{"systemd-resolved": true, "nscd": true, "unscd": true, "nslcd": true, "sssd": true, "nsncd": true}

// lastSystemUser is the largest number of users that distributions reserve for
// services.
const lastSystemUser = 999

// resolves reports whether the answers that a process gets count for all of its
// network namespace: it is a resolver's program, of the system and not of a
// container, and runs as a user of the system. A person's process cannot be
// that one whatever it mounts over its files, since the user's number is the
// kernel's own.
func resolves(s *record.Process, euid uint32) bool {
	exe := string(s.Executable)
	return euid <= lastSystemUser && s.ContainerId == "" && s.Flags&(record.ProcessDeleted|record.ProcessDetached|record.ProcessPathTruncated) == 0 &&
		(strings.HasPrefix(exe, "/usr/") || strings.HasPrefix(exe, "/lib/") || strings.HasPrefix(exe, "/sbin/")) &&
		!strings.HasPrefix(exe, "/usr/local/") && resolvers[path.Base(exe)]
}
