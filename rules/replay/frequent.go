package replay

import (
	"cmp"
	"slices"
	"strings"
)

const (
	maxNoisy = 512 // keys that are counted
	maxShown = 10
)

// frequent counts the most frequent of any number of keys in bounded memory: a key
// that finds no room takes the place of the rarest one and its count (Metwally's
// space-saving). A count is at most that much too high.
type frequent struct {
	limit int
	keys  map[string]*counter
}

type counter struct {
	key          string
	count, error uint64
}

func newFrequent(limit int) *frequent { return &frequent{limit: limit, keys: map[string]*counter{}} }

func (f *frequent) add(key string) {
	if c := f.keys[key]; c != nil {
		c.count++
		return
	}
	c := &counter{key: key, count: 1}
	if len(f.keys) >= f.limit {
		var least *counter
		for _, k := range f.keys {
			if least == nil || k.count < least.count || k.count == least.count && k.key < least.key {
				least = k
			}
		}
		delete(f.keys, least.key)
		c.count, c.error = least.count+1, least.count
	}
	f.keys[key] = c
}

// top returns the most frequent keys.
func (f *frequent) top(n int) []*counter {
	all := make([]*counter, 0, len(f.keys))
	for _, c := range f.keys {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *counter) int { return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.key, b.key)) })
	return all[:min(n, len(all))]
}

func (c *counter) noisy() Noisy {
	parts := strings.SplitN(c.key, "\x00", 3)
	return Noisy{Policy: parts[0], Name: parts[1], Subject: parts[2], Count: c.count, AtMostLess: c.error}
}
