package chain

import (
	"container/list"
	"sync"
)

// tileCacheSize is how many full tiles are kept with their nodes: 16 KiB each,
// 12 MiB in all. That is enough for proofs all over 180,000 entries, and for the
// tiles of the higher levels of every log that is asked about.
const tileCacheSize = 768

// tileCache keeps the full tiles that proofs used last. A full tile never
// changes, so what is here is never wrong. It is safe for concurrent use.
type tileCache struct {
	size int

	mu    sync.Mutex
	tiles map[tileKey]*list.Element // of *cachedTile
	used  *list.List                // the one used last is the first
}

type tileKey struct {
	log   LogID
	level uint8
	index uint64
}

type cachedTile struct {
	key tileKey
	tile
}

func newTileCache(size int) *tileCache {
	return &tileCache{size: size, tiles: map[tileKey]*list.Element{}, used: list.New()}
}

// get returns a full tile of a log, reading and hashing it where it is not
// cached. Two who miss the same tile both read it: that costs less than one
// waiting for the other's disk.
func (c *tileCache) get(l *Log, level uint8, index uint64) (*tile, error) {
	key := tileKey{l.id, level, index}
	c.mu.Lock()
	if e := c.tiles[key]; e != nil {
		c.used.MoveToFront(e)
		c.mu.Unlock()
		return &e.Value.(*cachedTile).tile, nil
	}
	c.mu.Unlock()
	hashes, err := readTile(l.store.db, l.id, level, index)
	if err != nil {
		return nil, err
	}
	t := &cachedTile{key: key, tile: makeTile(hashes)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.tiles[key]; e != nil {
		return &e.Value.(*cachedTile).tile, nil
	}
	c.tiles[key] = c.used.PushFront(t)
	if c.used.Len() > c.size {
		delete(c.tiles, c.used.Remove(c.used.Back()).(*cachedTile).key)
	}
	return &t.tile, nil
}
