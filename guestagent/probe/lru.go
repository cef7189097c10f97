package probe

import "container/list"

// lru is a bounded table: a new entry beyond its size pushes out the one that
// was used least recently. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	size int
	all  map[K]*list.Element // of *entry[K, V]
	used *list.List          // the newest first
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](size int) *lru[K, V] {
	return &lru[K, V]{size: size, all: map[K]*list.Element{}, used: list.New()}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	e := l.all[k]
	if e == nil {
		return v, false
	}
	l.used.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

func (l *lru[K, V]) put(k K, v V) {
	if e := l.all[k]; e != nil {
		e.Value.(*entry[K, V]).value = v
		l.used.MoveToFront(e)
		return
	}
	if len(l.all) >= l.size {
		l.drop()
	}
	l.all[k] = l.used.PushFront(&entry[K, V]{k, v})
}

// drop removes the one that was used least recently, of at least one.
func (l *lru[K, V]) drop() (K, V) {
	last := l.used.Back()
	x := last.Value.(*entry[K, V])
	delete(l.all, x.key)
	l.used.Remove(last)
	return x.key, x.value
}

// remove forgets an entry.
func (l *lru[K, V]) remove(k K) {
	if e := l.all[k]; e != nil {
		delete(l.all, k)
		l.used.Remove(e)
	}
}
