package rules

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

// plot is a feed in which one thing happens after the other.
type plot struct {
	*feed
	t testing.TB
}

func tell(t testing.TB) *plot {
	s := &plot{&feed{}, t}
	s.genesis(t, "")
	return s
}

func (s *plot) modify(after time.Duration, path, process string, size uint64) uint64 {
	f := file(path)
	f.Inode, f.Size = 5, size
	p := vim()
	p.Name = []byte(process)
	return uint64(s.add(s.t, after, record.OriginGuest, record.ClassFileModify, &record.Event{Process: p, File: f}))
}

func (s *plot) exec(after time.Duration, path, process string) uint64 {
	p := vim()
	p.Name, p.Executable = []byte(process), []byte(path)
	return uint64(s.add(s.t, after, record.OriginGuest, record.ClassProcessExec, &record.Event{Process: p}))
}

func (s *plot) delete(after time.Duration, path string) uint64 {
	return uint64(s.add(s.t, after, record.OriginGuest, record.ClassFileDelete, &record.Event{Process: vim(), File: file(path)}))
}

func (s *plot) rename(after time.Duration, path string) uint64 {
	return uint64(s.add(s.t, after, record.OriginGuest, record.ClassFileRename, &record.Event{Process: vim(), File: file(path), Target: file("/t")}))
}

// causes runs the story and returns which entries gave verdicts.
func (s *plot) causes(policies string) string {
	s.t.Helper()
	var out []string
	for _, v := range run(s.t, engine(s.t, load(s.t, policies), Options{}), &State{}, s.feed) {
		c := fmt.Sprint(v.CauseIndex)
		if v.Escalation != "" {
			c += v.Escalation
		}
		if v.Error != "" {
			c += "!" + v.Error
		}
		if v.Exception != "" {
			c += "-" + v.Exception + fmt.Sprint(v.Suppressed)
		}
		for _, a := range v.Actions {
			if a.Message != "" && v.Error == "" {
				c += ":" + a.Message
			}
		}
		out = append(out, c)
	}
	return strings.Join(out, " ")
}

func (s *plot) want(policies, want string) {
	s.t.Helper()
	if got := s.causes(policies); got != want {
		s.t.Errorf("verdicts on %q, want %q", got, want)
	}
}

const ms = time.Millisecond

func TestThreshold(t *testing.T) {
	const pol = `policy "p" {
  on = ["file.modify"]
  threshold {
    count  = 3
    by     = [process.name]
    window = "10s"
  }
  action "alert" {
    message = "${threshold.count}/${threshold.window}"
  }
}
`
	s := tell(t)
	s.modify(0, "/a", "x", 1)
	s.modify(time.Second, "/a", "y", 1)
	s.modify(time.Second, "/a", "x", 1)
	third := s.modify(7999*ms, "/a", "x", 1) // 9.999 s behind the first
	s.want(pol, fmt.Sprintf("%d:3/10s", third))
	s.modify(ms, "/a", "x", 1) // counting has begun anew
	s.modify(ms, "/a", "x", 1)
	s.want(pol, fmt.Sprintf("%d:3/10s", third))
	sixth := s.modify(ms, "/a", "x", 1)
	s.want(pol, fmt.Sprintf("%d:3/10s %d:3/10s", third, sixth))

	s = tell(t)
	s.modify(0, "/a", "x", 1)
	s.modify(5*time.Second, "/a", "x", 1)
	s.modify(5*time.Second, "/a", "x", 1) // exactly 10 s behind the first, which is out
	s.want(pol, "")
	fourth := s.modify(0, "/a", "x", 1)
	s.want(pol, fmt.Sprintf("%d:3/10s", fourth))
}

func TestThresholdDistinct(t *testing.T) {
	const pol = `policy "p" {
  on = ["file.modify", "process.exec"]
  threshold {
    count    = 3
    distinct = file.path
    window   = "10s"
  }
}
`
	s := tell(t)
	s.modify(0, "/a", "x", 1)
	s.modify(0, "/b", "x", 1)
	s.modify(6*time.Second, "/a", "x", 1) // /a is as new as this
	s.exec(0, "/bin/x", "x")              // has no path: not counted
	s.want(pol, "")
	at := s.modify(3*time.Second, "/c", "x", 1)
	s.want(pol, fmt.Sprint(at))
	// The window slides by values: /b is over, /a is not.
	s = tell(t)
	s.modify(0, "/a", "x", 1)
	s.modify(0, "/b", "x", 1)
	s.modify(6*time.Second, "/a", "x", 1)
	s.modify(5*time.Second, "/c", "x", 1)
	s.want(pol, "")
}

// A threshold is what its definition says: compared with counting all matches
// anew for each.
func TestThresholdModel(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	fired := 0
	for range 60 {
		s := tell(t)
		type match struct {
			mono      int64
			path, key string
		}
		var entries []match
		for range 150 {
			after := []time.Duration{0, ms, time.Second, 3 * time.Second, 9 * time.Second}[r.IntN(5)]
			m := match{path: fmt.Sprint("/", r.IntN(4)), key: fmt.Sprint("p", r.IntN(3))}
			s.modify(after, m.path, m.key, 1)
			m.mono = s.mono
			entries = append(entries, m)
		}
		for _, distinct := range []bool{false, true} {
			count, window := 2+r.IntN(3), time.Duration(1+r.IntN(20))*time.Second
			field := ""
			if distinct {
				field = "distinct = file.path\n"
			}
			got := s.causes(fmt.Sprintf("policy \"p\" {\n on = [\"file.modify\"]\n threshold {\n count = %d\n %s by = [process.name]\n window = \"%s\"\n }\n}\n", count, field, window))
			var want []string
			held := map[string][]match{}
			for i, m := range entries {
				all := slices.DeleteFunc(held[m.key], func(o match) bool { return o.mono <= m.mono-int64(window) || distinct && o.path == m.path })
				if all = append(all, m); len(all) >= count {
					want, all = append(want, fmt.Sprint(i+2)), nil
				}
				held[m.key] = all
			}
			fired += len(want)
			if got != strings.Join(want, " ") {
				t.Fatalf("count %d, window %s, distinct %v: verdicts on %s, want %v", count, window, distinct, got, want)
			}
		}
	}
	if fired == 0 {
		t.Error("nothing was compared")
	}
}

func TestFirstSeen(t *testing.T) {
	const pol = `policy "p" {
  on = ["file.modify"]
  first_seen {
    by      = [file.path]
    history = "1m"
  }
}
`
	s := tell(t)
	a := s.modify(0, "/a", "x", 1)
	s.modify(59*time.Second, "/a", "x", 1)
	b := s.modify(0, "/b", "x", 1)
	s.modify(59*time.Second, "/a", "x", 1)         // seen a minute before, less one second
	again := s.modify(5*time.Second, "/b", "x", 1) // 64 s
	s.want(pol, fmt.Sprint(a, b, again))
	learn := strings.Replace(pol, `history = "1m"`, "history = \"1m\"\n learn = \"61s\"", 1)
	s.want(learn, fmt.Sprint(again))
}

const download = `policy "p" {
  sequence {
    within = "10m"
    step "download" {
      on        = ["file.modify"]
      condition = contains(["curl", "wget"], process.name)
    }
    step "run" {
      on        = ["process.exec"]
      condition = process.executable == step.download.file.path
    }
    reset {
      on        = ["file.delete"]
      condition = file.path == step.download.file.path
    }
  }
  action "alert" {
    message = "${step.download.process.name}(${step.download.count})${process.executable}"
  }
}
`

func TestSequence(t *testing.T) {
	s := tell(t)
	s.exec(0, "/tmp/x", "sh")
	s.modify(0, "/tmp/x", "curl", 1)
	s.modify(0, "/tmp/y", "vim", 1)
	s.exec(0, "/tmp/y", "sh")
	at := s.exec(9*time.Minute, "/tmp/x", "sh")
	s.exec(0, "/tmp/x", "sh") // the download was used up
	s.want(download, fmt.Sprintf("%d:curl(1)/tmp/x", at))

	s = tell(t)
	s.modify(0, "/tmp/x", "curl", 1)
	s.exec(10*time.Minute, "/tmp/x", "sh") // too late
	s.modify(0, "/tmp/x", "curl", 1)
	s.delete(0, "/tmp/z")
	s.delete(0, "/tmp/x") // reset
	s.exec(0, "/tmp/x", "sh")
	s.modify(0, "/tmp/x", "curl", 1)
	s.modify(0, "/tmp/y", "wget", 1)
	other := s.exec(0, "/tmp/x", "sh")
	at = s.exec(0, "/tmp/y", "sh")
	s.want(download, fmt.Sprintf("%d:curl(1)/tmp/x %d:wget(1)/tmp/y", other, at))

	// With keys of their own, one file does not hide the other.
	own := strings.NewReplacer(`contains(["curl", "wget"], process.name)`, "contains([\"curl\", \"wget\"], process.name)\n by = [file.path]",
		"condition = process.executable == step.download.file.path", "by = [process.executable]",
		"condition = file.path == step.download.file.path", "by = [file.path]").Replace(download)
	s = tell(t)
	s.modify(0, "/tmp/x", "curl", 1)
	s.modify(0, "/tmp/y", "wget", 1)
	x := s.exec(0, "/tmp/x", "sh")
	s.delete(0, "/tmp/y")
	s.exec(0, "/tmp/y", "sh")
	s.want(own, fmt.Sprintf("%d:curl(1)/tmp/x", x))
}

func TestSequenceCounts(t *testing.T) {
	const pol = `policy "p" {
  sequence {
    by     = [process.name]
    within = "10s"
    step "failures" {
      on    = ["file.modify"]
      count = 3
    }
    step "tries" {
      on    = ["process.exec"]
      count = 2
    }
    step "end" {
      on = ["file.delete", "file.modify"]
      by = [process.name]
    }
  }
  action "alert" {
    message = "${step.failures.count} ${step.tries.count} ${step.end.count}"
  }
}
`
	s := tell(t)
	first := s.modify(0, "/a", "vim", 1)
	s.modify(6*time.Second, "/a", "vim", 1)
	s.modify(6*time.Second, "/a", "vim", 1) // the first is out
	s.exec(0, "/bin/x", "vim")
	s.exec(0, "/bin/x", "vim")
	s.delete(0, "/a")
	s.want(pol, "")
	s = tell(t)
	for range 5 {
		first = s.modify(time.Second, "/a", "vim", 1)
	}
	s.exec(0, "/bin/x", "other")
	s.exec(0, "/bin/x", "vim")
	second := s.exec(0, "/bin/x", "vim")
	// The five lie within 5 s; the window began with the third of them.
	at := s.delete(7*time.Second, "/a")
	s.want(pol, fmt.Sprintf("%d:5 2 1", at))
	v := run(t, engine(t, load(t, pol), Options{}), &State{}, s.feed)
	if len(v) != 1 || len(v[0].Steps) != 2 || v[0].Steps[0].Index != first || v[0].Steps[1].Index != second || v[0].Steps[0].Count != 5 || v[0].Steps[1].Name != "tries" {
		t.Errorf("steps %v", v)
	}
	s = tell(t)
	for range 3 {
		s.modify(time.Second, "/a", "vim", 1)
	}
	s.exec(0, "/bin/x", "vim")
	s.exec(0, "/bin/x", "vim")
	s.delete(8*time.Second, "/a") // 10 s behind the first
	s.want(pol, "")
}

// What cannot be kept whole would be compared wrongly: that is an error.
func TestSequenceLongValue(t *testing.T) {
	s := tell(t)
	s.modify(0, "/"+strings.Repeat("x", maxCaptured), "curl", 1)
	if got := s.causes(download); !strings.Contains(got, "file.path has 4097 bytes") {
		t.Errorf("verdicts %q", got)
	}
}

func TestExceptions(t *testing.T) {
	pol := `policy "p" {
  on   = ["file.modify"]
  mode = "enforce"
  exception "backup" {
    condition = process.name == "backup"
    reason    = "CHG-1"
    expires   = "2023-11-14T22:14:20Z"
  }
  exception "wrong" {
    condition = file.size < 2
    reason    = "CHG-2"
    expires   = "2023-12-31"
  }
  threshold {
    count  = 2
    window = "1m"
  }
}
`
	// The wall clock of a story begins at 2023-11-14T22:13:20Z.
	s := tell(t)
	s.modify(0, "/a", "backup", 9)
	s.modify(0, "/a", "backup", 9)
	s.modify(0, "/a", "x", 1) // "wrong"
	s.modify(0, "/a", "x", 9)
	at := s.modify(0, "/a", "x", 9)
	s.want(pol, fmt.Sprint(at))
	end := s.delete(2*time.Minute, "/z") // any entry tells the time
	s.modify(0, "/a", "backup", 9)
	late := s.modify(0, "/a", "backup", 9)
	s.delete(time.Minute, "/z")
	s.want(pol, fmt.Sprintf("%d %d-backup2 %d", at, end, late))
	for _, v := range run(t, engine(t, load(t, pol), Options{}), &State{}, s.feed) {
		if v.Exception != "" && (ClassOf(v) != record.ClassPolicyExceptionExpired || len(v.Actions) > 0 || v.WouldHave) {
			t.Errorf("verdict %v", v)
		}
	}
	// An exception that cannot be decided covers nothing, and is told.
	s = tell(t)
	s.add(t, 0, record.OriginGuest, record.ClassFileModify, &record.Event{Process: vim(), File: file("/a")})
	if got := s.causes(strings.Replace(pol, "count  = 2", "count  = 2\n max_keys = 1", 1)); !strings.Contains(got, "exception wrong: ") {
		t.Errorf("verdicts %q", got)
	}
}

func TestOnError(t *testing.T) {
	pol := `policy "p" {
  on        = ["file.modify"]
  condition = file.size > 5
  on_error  = "alert"
  action "pause" {}
}
`
	s := tell(t)
	s.add(t, 0, record.OriginGuest, record.ClassFileModify, &record.Event{Process: vim(), File: file("/a")})
	if got := s.causes(pol); !strings.HasPrefix(got, "2!") {
		t.Errorf("alert: %q", got)
	}
	s.want(strings.Replace(pol, `"alert"`, `"ignore"`, 1), "")
	s.want(strings.Replace(pol, `"alert"`, `"treat_as_match"`, 1), "2")
}

func TestLimit(t *testing.T) {
	pol := `policy "p" {
  on   = ["file.modify"]
  mode = "enforce"
  limit {
    max   = 2
    per   = "1m"
    scope = "vm"
    then  = "alert"
  }
  action "pause" {
    resume_after = "1m"
  }
  action "alert" {
    message = "x"
  }
}
`
	s := tell(t)
	for range 4 {
		s.modify(time.Second, "/a", "x", 1)
	}
	s.modify(57*time.Second, "/a", "x", 1) // 60 s behind the first
	kinds := func(pol string, opts Options) (out string) {
		for _, v := range run(t, engine(t, load(t, pol), opts), &State{}, s.feed) {
			if ClassOf(v) == record.ClassPolicyLimitReached {
				if out += "L "; v.LimitMax != 2 || v.Policy != "p" || v.Limited == "" || v.WouldHave || len(v.Actions) > 0 {
					t.Errorf("%v", v)
				}
				continue
			}
			for _, a := range v.Actions {
				out += a.Kind[:1]
				if a.Kind == "pause" && a.Parameters["resume_after"] != "60" {
					t.Errorf("parameters %v", a.Parameters)
				}
			}
			if out += v.Limited; v.WouldHave {
				out += "?"
			}
			out += " "
		}
		return out
	}
	if got := kinds(pol, Options{}); got != "pa pa L aalert aalert pa " {
		t.Errorf("actions %q", got)
	}
	if got := kinds(strings.Replace(pol, `then  = "alert"`, `then = "audit"`, 1), Options{}); got != "pa pa L paaudit? paaudit? pa " {
		t.Errorf("actions %q", got)
	}
	if got := kinds(strings.Replace(pol, `"enforce"`, `"audit"`, 1), Options{}); got != "pa? pa? pa? pa? pa? " {
		t.Errorf("in audit: %q", got)
	}
}

func TestEscalate(t *testing.T) {
	const pol = `policy "p" {
  on = ["file.modify"]
  cooldown {
    period = "1h"
  }
  action "alert" {
    message = "first"
  }
  escalate "again" {
    threshold {
      count    = 3
      distinct = file.path
      window   = "1m"
    }
    action "alert" {
      message = "${threshold.count}"
    }
  }
}
`
	s := tell(t)
	first := s.modify(0, "/a", "x", 1)
	s.modify(0, "/a", "x", 1)
	s.modify(0, "/b", "x", 1)
	third := s.modify(0, "/c", "x", 1)
	s.want(pol, fmt.Sprintf("%d:first %dagain:3", first, third))
}

// Beyond its keys a window gives up the one that was not used for longest, and
// says so once a minute.
func TestOverflow(t *testing.T) {
	const pol = `policy "p" {
  on = ["file.modify"]
  threshold {
    count    = 2
    by       = [file.path]
    window   = "10m"
    max_keys = 2
  }
}
`
	s := tell(t)
	s.modify(0, "/a", "x", 1)
	s.modify(0, "/b", "x", 1)
	lost := s.modify(0, "/c", "x", 1) // /a is given up
	s.modify(0, "/a", "x", 1)         // /b is
	s.modify(0, "/b", "x", 1)         // /c is
	a := s.modify(0, "/a", "x", 1)
	got := s.causes(pol)
	if want := fmt.Sprintf("%d!state overflow: 1 key(s) of policy p ", lost); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, fmt.Sprint(" ", a)) {
		t.Errorf("verdicts on %q", got)
	}
	later := s.delete(time.Minute, "/z")
	if got := s.causes(pol); !strings.Contains(got, fmt.Sprintf(" %d!state overflow: 2 key(s)", later)) {
		t.Errorf("verdicts on %q", got)
	}
}

// Windows stay within their bytes, whatever a guest does.
func TestWindowBytes(t *testing.T) {
	pol := download
	for i := range 64 {
		pol += fmt.Sprintf("policy \"t%d\" {\n on = [\"file.modify\"]\n threshold {\n count = 10000\n by = [file.path]\n window = \"1d\"\n max_keys = 4000\n }\n}\n", i)
	}
	e, st := engine(t, load(t, pol), Options{}), &State{}
	s := tell(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		s.modify(ms, fmt.Sprintf("/%0200d", r.IntN(300)), "curl", uint64(i))
	}
	run(t, e, st, s.feed)
	total := 0
	for _, x := range st.tables {
		n := 0
		x.each(func(s *slot) { n += s.size() })
		if n != x.bytes || x.bytes > keyBytes*x.limit {
			t.Errorf("window of %s holds %d bytes, accounts for %d of %d", x.policy, n, x.bytes, keyBytes*x.limit)
		}
		total += n
	}
	if total != st.windowBytes || total > MaxWindowBytes || total < MaxWindowBytes/4*3 {
		t.Errorf("windows hold %d bytes, account for %d", total, st.windowBytes)
	}
}

// What windows hold of erased entries is gone from the saved state, and the
// rest still counts.
func TestErasedWindows(t *testing.T) {
	const pol = download + `policy "often" {
  on = ["file.modify"]
  threshold {
    count    = 3
    distinct = file.path
    by       = [process.name]
    window   = "1h"
  }
}
policy "new" {
  on = ["file.modify"]
  first_seen {
    by      = [file.path]
    history = "14d"
  }
}
`
	s := tell(t)
	gone := s.modify(0, "/secret-path", "curl", 1)
	s.modify(0, "/b", "curl", 1)
	s.modify(0, "/b", "curl", 1)
	e, st := engine(t, load(t, pol), Options{}), &State{}
	run(t, e, st, s.feed)
	keys := st.Keys()
	s.add(t, 0, record.OriginOperator, record.ClassErased, &record.Erased{Ranges: []*record.EntryRange{{First: gone, Last: gone}}})
	run(t, e, st, s.feed)
	if got := st.Keys(); got != keys-1 { // that of first_seen
		t.Errorf("%d keys of %d are left", got, keys)
	}
	s.modify(0, "/c", "curl", 1)
	if v := run(t, e, st, s.feed); names(v) != "new?" {
		t.Errorf("an erased value counts: %s", names(v))
	}
	s.modify(0, "/d", "curl", 1)
	if v := run(t, e, st, s.feed); names(v) != "new? often?" {
		t.Errorf("verdicts %s", names(v))
	}

	s = tell(t)
	gone = s.modify(0, "/secret-path", "curl", 1)
	e, st = engine(t, load(t, download), Options{}), &State{}
	run(t, e, st, s.feed)
	b, _ := st.MarshalBinary()
	if !bytes.Contains(b, []byte("secret-path")) {
		t.Fatal("the step's value is not in the saved state: the test is void")
	}
	s.add(t, 0, record.OriginOperator, record.ClassErased, &record.Erased{Ranges: []*record.EntryRange{{First: gone, Last: gone}}})
	run(t, e, st, s.feed)
	if b, _ = st.MarshalBinary(); bytes.Contains(b, []byte("secret-path")) || st.Keys() != 0 {
		t.Error("an erased word is still in the state")
	}
}

// Windows of an unchanged policy survive a new bundle, those of a changed one
// begin anew.
func TestSwap(t *testing.T) {
	const pol = `policy "p" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  threshold {
    count  = 3
    window = "1h"
  }
}
`
	s := tell(t)
	s.modify(0, "/etc/a", "x", 1)
	s.modify(0, "/etc/a", "x", 1)
	for text, want := range map[string]string{
		pol + "policy \"q\" {\n on = [\"dns.query\"]\n}\n":              "p?",
		strings.Replace(pol, `"1h"`, `"2h"`, 1):                         "",
		strings.Replace(pol, `"/etc")`, `"/etc") && user.id < 5000`, 1): "",
	} {
		f := *s.feed
		f.leaves, f.hashes, f.payloads = slices.Clone(f.leaves), slices.Clone(f.hashes), slices.Clone(f.payloads)
		st := &State{}
		run(t, engine(t, load(t, pol), Options{}), st, &f)
		(&plot{&f, t}).modify(0, "/etc/a", "x", 1)
		if got := names(run(t, engine(t, load(t, text), Options{}), st, &f)); got != want {
			t.Errorf("after the change to %q: %q, want %q", text, got, want)
		}
	}
}
