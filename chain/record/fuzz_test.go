package record

import (
	"bytes"
	"errors"
	"testing"
)

func FuzzParseHeader(f *testing.F) {
	f.Add(Header{Class: ClassFileRename, Lane: NoLane, Session: 1, Sequence: 2, LaneSequence: 3, Time: 4}.AppendBinary(nil))
	f.Add(make([]byte, HeaderSize))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			if h != (Header{}) || !errors.Is(err, ErrReject) {
				t.Fatalf("error %v with %+v", err, h)
			}
			return
		}
		if got := h.AppendBinary(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x comes back as %x", b, got)
		}
	})
}

func FuzzParseLeaf(f *testing.F) {
	f.Add((&Leaf{Origin: OriginHost, Index: 7, Mono: 8, Wall: 9, Header: Header{Class: ClassGenesis}}).AppendBinary(nil))
	f.Add(make([]byte, LeafSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLeaf(b)
		if err != nil {
			if l != (Leaf{}) || !errors.Is(err, ErrReject) {
				t.Fatalf("error %v with %+v", err, l)
			}
			return
		}
		if got := l.AppendBinary(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x comes back as %x", b, got)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, c := range Classes() {
		f.Add(uint16(c), []byte{})
	}
	m := &Event{Process: &Process{Pid: 1, Name: []byte("sh"), Args: [][]byte{[]byte("-c")}}, File: &File{Path: []byte("/etc/\xff")}}
	b, err := Encode(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(ClassFileCreate), b)
	f.Add(uint16(ClassPolicyVerdict), []byte{0x42, 0x07, 0x1a, 0x05, 0x0a, 0x01, 'k', 0x12, 0x00})
	f.Fuzz(func(t *testing.T, class uint16, b []byte) {
		m, err := Decode(Class(class), b)
		if err != nil {
			if m != nil || !errors.Is(err, ErrReject) {
				t.Fatalf("error %v with %v", err, m)
			}
			return
		}
		again, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		// A decoder may read what an encoder would not write, such as fields
		// twice; what it has read must come back the same from then on. Maps
		// have no order, so it is the decoded form that counts.
		m2, err := Decode(Class(class), again)
		if err != nil {
			// Only a payload at the limit can have grown over it.
			if len(again) > MaxPayload {
				return
			}
			t.Fatalf("%x was read and not read back: %v", b, err)
		}
		if n := m2.SizeVT(); n != len(again) {
			t.Fatalf("%x has size %d after one round and %d after two", b, len(again), n)
		}
		if Text(Class(class), m) != Text(Class(class), m2) {
			t.Fatalf("%x reads otherwise after a round", b)
		}
	})
}
