package virt

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Bounds of what is read of the audit log.
const (
	maxAuditLine = 8 << 10
	maxAuditRead = 4 << 20 // in one round
	auditEvery   = time.Second
	claimWindow  = 10 * time.Second // between an event and the line about it
	maxRecent    = 256
)

// Audited is one record of libvirt in the kernel's audit log.
type Audited struct {
	UUID  domain.UUID
	Name  string
	Claim *record.Claim
}

// ParseAudit reads a line of the audit log, raw or enriched. Records of others than
// libvirt, and those that are not whole, are not ok. Names that hold anything odd are
// encoded by libvirt, so none can end its field; the first of two equal fields counts.
func ParseAudit(line string) (a Audited, ok bool) {
	const kind = "type=VIRT_CONTROL msg=audit("
	if len(line) > maxAuditLine || !strings.HasPrefix(line, kind) {
		return a, false
	}
	stamp, rest, ok := strings.Cut(line[len(kind):], ")")
	at, ok2 := auditTime(stamp)
	outer, rest, ok3 := strings.Cut(rest, "msg='")
	inner, extra, ok4 := cutLast(rest, "'")
	if !ok || !ok2 || !ok3 || !ok4 {
		return a, false
	}
	o, i, x := auditFields(outer), auditFields(inner), auditFields(strings.TrimPrefix(extra, "\x1d"))
	id, err := domain.ParseUUID(i["uuid"])
	if err != nil || i["virt"] == "" || i["op"] == "" {
		return a, false // docker and others write records of this kind, too
	}
	number := func(name string) uint32 {
		n, err := strconv.ParseUint(o[name], 10, 32)
		if err != nil {
			return 1<<32 - 1 // unset
		}
		return uint32(n)
	}
	c := &record.Claim{Source: "audit", Uid: number("uid"), LoginUid: number("auid"), Session: number("ses"), Pid: number("pid"),
		Executable: bounded(i["exe"]), Operation: bounded(i["op"]), Reason: bounded(i["reason"]), Success: i["res"] == "success", Time: at.UnixNano(),
		Text: bounded(line)}
	if i["addr"] != "?" {
		c.Address = bounded(i["addr"])
	}
	switch { // who logged in, where somebody did
	case c.LoginUid != 1<<32-1 && x["AUID"] != "":
		c.User = x["AUID"]
	case c.LoginUid != 1<<32-1:
		c.User = strconv.FormatUint(uint64(c.LoginUid), 10)
	case x["UID"] != "":
		c.User = x["UID"]
	default:
		c.User = strconv.FormatUint(uint64(c.Uid), 10)
	}
	c.User = bounded(c.User)
	return Audited{UUID: id, Name: bounded(i["vm"]), Claim: c}, true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	n := strings.LastIndex(s, sep)
	if n < 0 {
		return "", "", false
	}
	return s[:n], s[n+len(sep):], true
}

// auditTime reads SECONDS.MILLISECONDS:SERIAL.
func auditTime(s string) (time.Time, bool) {
	sec, rest, _ := strings.Cut(s, ".")
	ms, _, ok := strings.Cut(rest, ":")
	n, err := strconv.ParseInt(sec, 10, 64)
	m, err2 := strconv.ParseInt(ms, 10, 64)
	if !ok || err != nil || err2 != nil || len(ms) != 3 || n < 0 || m < 0 || n > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(n, m*1e6), true
}

// auditFields reads name=value fields. A value in quotes ends at the next quote;
// one without may be the hexadecimal form of an odd name.
func auditFields(s string) map[string]string {
	all := map[string]string{}
	for len(all) < 32 {
		s = strings.TrimLeft(s, " ,:(\x1d")
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		if n := strings.LastIndexByte(name, ' '); n >= 0 {
			name = name[n+1:] // words without a value, such as "user" of old kernels
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, s, _ = strings.Cut(rest[1:], `"`)
		} else {
			value, s, _ = strings.Cut(rest, " ")
			value = strings.TrimRight(value, ",:)") // of old kernels
			if b, err := hex.DecodeString(value); name == "vm" && err == nil && len(b) > 0 {
				value = string(b)
			}
		}
		if _, twice := all[name]; !twice {
			all[name] = value
		}
	}
	return all
}

// auditor follows the audit log and tells what it claims about who had a domain
// started or stopped. It says nothing where the log says nothing.
type auditor struct {
	h    *Host
	path string

	mu     sync.Mutex
	recent []Observation // of domains' lives, to join claims with

	file *os.File
	rest []byte // an unfinished line
	skip bool   // the line at hand is too long
}

// saw keeps what a claim may be about.
func (a *auditor) saw(o *Observation) {
	if a.path == "" || o.Kind != KindLifecycle {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.recent) == maxRecent {
		a.recent = a.recent[1:]
	}
	a.recent = append(a.recent, Observation{Domain: o.Domain, Word: o.Word, Time: o.Time})
}

// run reads what is appended until ctx ends. What stood in the log before is not
// told: it may have been told by an earlier run.
func (a *auditor) run(ctx context.Context) {
	if a.path == "" {
		return
	}
	tick := time.NewTicker(auditEvery)
	defer tick.Stop()
	defer a.close()
	a.open(ctx, io.SeekEnd)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.round(ctx)
		}
	}
}

func (a *auditor) close() {
	if a.file != nil {
		_ = a.file.Close() // it was only read
		a.file, a.rest, a.skip = nil, nil, false
	}
}

func (a *auditor) open(ctx context.Context, whence int) {
	f, err := os.Open(a.path)
	if err == nil {
		_, err = f.Seek(0, whence)
	}
	if err != nil {
		if a.h.stats.AuditErrors.Add(1) == 1 {
			a.h.cfg.Log.WarnContext(ctx, "the audit log cannot be read: who asked for what is not known", "path", a.path, "error", err)
		}
		return
	}
	a.file = f
}

// round reads what is new, and goes on in the next file where the log was rotated.
func (a *auditor) round(ctx context.Context) {
	if a.file == nil {
		a.open(ctx, io.SeekStart)
	}
	if a.file == nil {
		return
	}
	a.read()
	old, err := a.file.Stat()
	now, err2 := os.Stat(a.path)
	at, err3 := a.file.Seek(0, io.SeekCurrent)
	switch {
	case errors.Join(err, err2, err3) != nil:
		return // between two files
	case !os.SameFile(old, now):
		a.read() // what came between
		a.close()
	case old.Size() < at: // cut off in place
		a.close()
	}
}

// read takes whole lines off the file.
func (a *auditor) read() {
	r := bufio.NewReaderSize(io.LimitReader(a.file, maxAuditRead), maxAuditLine)
	for {
		part, err := r.ReadSlice('\n')
		if len(a.rest)+len(part) > maxAuditLine {
			a.rest, a.skip = nil, true
		}
		if err != nil { // the end of what there is, or of the buffer
			if !a.skip {
				a.rest = append(a.rest, part...)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			return
		}
		if !a.skip {
			a.line(string(bytes.TrimRight(append(a.rest, part...), "\r\n")))
		}
		a.rest, a.skip = a.rest[:0], false
	}
}

// line tells what a line claims, joined with the event that it is about.
func (a *auditor) line(s string) {
	c, ok := ParseAudit(s)
	if !ok {
		return
	}
	a.h.mu.Lock()
	known, there := a.h.known[c.UUID]
	a.h.mu.Unlock()
	if !there {
		a.h.stats.AuditStrangers.Add(1) // not of this libvirt
		return
	}
	t := told("claim").device(c.Claim.Operation).says("alone")
	t.ClaimedBy = c.Claim
	a.mu.Lock()
	for i := len(a.recent) - 1; i >= 0; i-- {
		o := &a.recent[i]
		apart := o.Time.Sub(time.Unix(0, c.Claim.Time)).Abs()
		if o.Domain.UUID == c.UUID && o.Word == c.Claim.Operation && apart <= claimWindow {
			t = t.says("joined").text("event", o.Word).text("arrived", strconv.FormatInt(o.Time.UnixNano(), 10))
			break
		}
	}
	a.mu.Unlock()
	a.h.tell(a.h.notice(known.Domain, record.ClassVMChange, t))
}
