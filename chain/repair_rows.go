package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// storeRow mends the row of the store from the anchor and the configuration.
func (r *repairer) storeRow() error {
	if err := r.s.loadStoreRow(); err == nil {
		if id, _, err := parseAnchor(r.place.live); err != nil || id == r.s.id {
			return err
		}
	}
	id, _, err := parseAnchor(r.place.live)
	if err != nil {
		return err
	}
	r.did(nil, "store", 0, 0, "rebuilt", "its row differed from the anchor and the configuration")
	if err := r.s.db.Set(keyMeta(metaStore, nil), storeRow(id, r.cfg.PayloadKeys != "", r.cfg.HostID), pebble.NoSync); err != nil {
		return err
	}
	return r.s.loadStoreRow()
}

// findLogs registers every log and returns how many entries their rows say they
// have.
func (r *repairer) findLogs() (map[LogID]uint64, error) {
	sizes := map[LogID]uint64{}
	for table, entries := range map[byte]uint64{tableEntry: 1, tableBundle: tileWidth} {
		for from := []byte{table}; ; {
			key, err := r.firstKey(from, []byte{table + 1})
			if err != nil || key == nil {
				if err != nil {
					return nil, err
				}
				break
			}
			id := LogID(binary.BigEndian.Uint32(key[1:]))
			last, err := r.lastKey(keyLog(table, id))
			if err != nil {
				return nil, err
			}
			sizes[id] = max(sizes[id], (binary.BigEndian.Uint64(last[5:])+1)*entries)
			if from = endOf(keyLog(table, id)); id == math.MaxUint32 {
				break
			}
		}
	}
	if err := r.findDropped(sizes); err != nil {
		return nil, err
	}
	for id := LogID(0); int(id) < len(sizes); id++ {
		if _, ok := sizes[id]; !ok {
			return nil, fmt.Errorf("log number %d has no entries, and number %d has: its rows are gone", id, len(sizes))
		}
		if err := r.findLog(id); err != nil {
			return nil, err
		}
		tiles, err := r.lastKey(append(keyLog(tableTile, id), 0))
		if err != nil {
			return nil, err
		}
		if tiles != nil {
			sizes[id] = max(sizes[id], (binary.BigEndian.Uint64(tiles[6:])+1)*tileWidth)
		}
	}
	return sizes, nil
}

// findDropped adds the logs that were dropped: of them there is a row, and the head.
func (r *repairer) findDropped(sizes map[LogID]uint64) error {
	return scan(r.s.db, keyMeta(metaDropped, nil), func(key, _ []byte) error {
		if len(key) != 6 {
			return nil
		}
		id := LogID(binary.BigEndian.Uint32(key[2:]))
		row, ok, err := get(r.s.db, keyLog(tableHead, id))
		if err != nil {
			return err
		}
		if h, err := parseHead(row); ok && err == nil {
			sizes[id] = max(sizes[id], h.size)
		}
		return nil
	})
}

// findLog registers one log: the first entry of it says its name.
func (r *repairer) findLog(id LogID) error {
	row, ok, err := get(r.s.db, keyMetaLog(id))
	if err != nil {
		return err
	}
	origin, err := r.genesis(id)
	if err != nil && !ok {
		return fmt.Errorf("log number %d: its name is lost: %w", id, err)
	}
	if err != nil {
		origin = string(row)
	}
	l, err := r.s.newLog(id, origin)
	if err != nil {
		return fmt.Errorf("log number %d: %w", id, err)
	}
	r.s.register(l)
	if string(row) == origin {
		return nil
	}
	r.did(l, "log", 0, 0, "rebuilt", "the name of log number %d differed from its first entry", id)
	return r.s.db.Set(keyMetaLog(id), []byte(origin), pebble.NoSync)
}

// genesis returns the name of a log as its first entry has it.
func (r *repairer) genesis(id LogID) (string, error) {
	if id == 0 {
		return proof.HostOrigin(r.cfg.HostID), nil
	}
	l := &Log{store: r.s, id: id}
	p := &logRepair{r: r, l: l}
	var o opening
	b, err := p.bundle(0)
	if err != nil {
		return "", err
	}
	if b != nil {
		_, o, err = p.packed(b, 0, record.Hash{})
	} else {
		row, ok, gerr := get(r.s.db, keySeq(tableEntry, id, 0))
		if gerr != nil || !ok {
			return "", errors.Join(errors.New("its first entry is gone"), gerr)
		}
		var problem string
		if _, o, problem, err = p.rows(0, record.LeafHash(row)); problem != "" {
			err = errors.New(problem)
		}
	}
	if err != nil {
		return "", err
	}
	var m record.Genesis
	if err := m.UnmarshalVT(o.payload); err != nil || m.Origin == "" {
		return "", errors.Join(errors.New("its first entry names no log"), err)
	}
	return m.Origin, nil
}

func (r *repairer) firstKey(from, end []byte) (key []byte, err error) {
	err = scanRange(r.s.db, from, end, func(k, _ []byte) error {
		if len(k) != keySeqSize {
			return fmt.Errorf("key %x belongs to no table", k)
		}
		key = slices.Clone(k)
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return key, err
}

var errEnough = errors.New("enough is read")

// lastKey returns the last key with a prefix, nil where there is none.
func (r *repairer) lastKey(prefix []byte) (key []byte, err error) {
	it, err := r.s.db.NewIter(iterBounds(prefix))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.Last() {
		key = slices.Clone(it.Key())
	}
	return key, it.Error()
}

// replace makes the rows of a table what they should be, and says so once.
func (r *repairer) replace(prefix []byte, want map[string][]byte, table string) error {
	have := map[string][]byte{}
	if err := scan(r.s.db, prefix, func(key, value []byte) error { have[string(key)] = slices.Clone(value); return nil }); err != nil {
		return err
	}
	changed := 0
	for key := range have {
		if _, ok := want[key]; !ok {
			changed++
			if err := r.s.db.Delete([]byte(key), pebble.NoSync); err != nil {
				return err
			}
		}
	}
	for key, value := range want {
		if old, ok := have[key]; ok && string(old) == string(value) {
			continue
		}
		changed++
		if err := r.s.db.Set([]byte(key), value, pebble.NoSync); err != nil {
			return err
		}
	}
	if changed > 0 {
		r.did(nil, table, 0, 0, "rebuilt", "%d rows differed from the entries that they follow from", changed)
	}
	return nil
}

// certificateRows mends what leads from keys to their certificates.
func (r *repairer) certificateRows() error {
	want := map[string][]byte{}
	for _, k := range r.certs {
		want[string(keyMeta(metaCertificate, k.key))] = certificateRow(0, k.index)
	}
	if r.logs[0].unread() {
		// What cannot be read may have been a certificate: keep what there is.
		err := scan(r.s.db, []byte{tableMeta, metaCertificate}, func(key, value []byte) error {
			if _, ok := want[string(key)]; !ok && len(key) == 34 && len(value) == 12 {
				want[string(key)] = slices.Clone(value)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return r.replace([]byte{tableMeta, metaCertificate}, want, "certificate")
}

// unread reports whether entries of the log cannot be read.
func (p *logRepair) unread() bool { return len(p.dropped) > 0 || len(p.fenced) > 0 }

// quoteRows mends what leads from VM logs to their newest quotes.
func (r *repairer) quoteRows() error {
	want := map[string][]byte{}
	for origin, q := range r.newest {
		if l, ok := r.s.LogByOrigin(origin); ok {
			want[string(keyLog(tableQuote, l.id))] = q.append(nil)
		}
	}
	if r.logs[0].unread() {
		err := scan(r.s.db, []byte{tableQuote}, func(key, value []byte) error {
			if q, err := parseQuote(value); err == nil && len(key) == 5 {
				if now, perr := parseQuote(want[string(key)]); perr != nil || q.index > now.index && q.index < r.logs[0].size {
					want[string(key)] = slices.Clone(value)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return r.replace([]byte{tableQuote}, want, "quote")
}

// closedRows mends what says that logs are closed: a log that lost its row would be
// gone on with behind its end.
func (r *repairer) closedRows() error {
	want := map[string][]byte{}
	for _, p := range r.logs {
		key := keyClosed(p.l.id)
		if index, ok := r.closed[p.l.id]; ok {
			want[string(key)] = binary.BigEndian.AppendUint64(nil, index)
			continue
		}
		// What cannot be read, or was pruned, may have closed it.
		row, ok, err := get(r.s.db, key)
		if err != nil {
			return err
		}
		if ok && len(row) == 8 && (p.unread() || p.pruned != nil || p.archived) && binary.BigEndian.Uint64(row) < p.size {
			want[string(key)] = row
		}
	}
	return r.replace(keyMeta(metaClosed, nil), want, "closed")
}

// otherRows drops what is malformed in tables of no evidence, and begins
// followers whose position is lost at the end: to read everything again would
// decide, and act, on all of it again.
func (r *repairer) otherRows() error {
	db := r.s.db
	last, err := r.lastKey([]byte{tableCommit})
	if err != nil {
		return err
	}
	if last == nil {
		return errors.New("no commit is left")
	}
	end := Position{Commit: binary.BigEndian.Uint64(last[1:]) + 1}
	err = scan(db, []byte{tableFollower}, func(key, value []byte) error {
		if p, _, err := parseFollower(value); err == nil && p.Commit <= end.Commit {
			return nil
		}
		r.did(nil, "follower", 0, 0, "rebuilt", "the position of %q is lost; it goes on at the end, commit %d, and what was not read yet is passed over", key[1:], end.Commit)
		return db.Set(slices.Clone(key), followerRow(end, nil), pebble.NoSync)
	})
	if err != nil {
		return err
	}
	host := r.logs[0].size
	return scan(db, []byte{tableMeta}, func(key, value []byte) error {
		var err error
		switch key[1] {
		case metaWitness:
			var w witnessRow
			if w, err = parseWitness(value); err == nil && w.size > host {
				err = fmt.Errorf("size %d is behind the end", w.size)
			}
		case metaQuorum:
			if len(value) != 2 || value[0] != witnessVersion || value[1] > 1 {
				err = errors.New("it is malformed")
			}
		case metaRestore:
			_, _, _, err = parseRestore(value)
		case metaStore, metaLog, metaCertificate, metaUser, metaErasure, metaPruned, metaClosed, metaDropped, metaFence:
		default:
			err = errors.New("it belongs to no table")
		}
		if err == nil {
			return nil
		}
		r.did(nil, "row", 0, 0, "dropped", "row %x: %v", key, err)
		return db.Delete(slices.Clone(key), pebble.NoSync)
	})
}
