package record

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/vectors.json anew: only for a new version of the format")

// vector fixes the bytes and hashes of one record. All bytes are hexadecimal.
type vector struct {
	Name       string `json:"name"`
	Class      uint16 `json:"class"`
	Lane       uint32 `json:"lane"`
	Session    uint64 `json:"session"`
	Sequence   uint64 `json:"sequence"`
	LaneSeq    uint64 `json:"lane_sequence"`
	Time       uint64 `json:"time"`
	Seed       string `json:"seed"`
	Payload    string `json:"payload"`
	Origin     uint8  `json:"origin"`
	Index      uint64 `json:"index"`
	Mono       int64  `json:"mono"`
	Wall       int64  `json:"wall"`
	Prev       string `json:"prev"`
	Header     string `json:"header"`
	Salt       string `json:"salt"`
	Commitment string `json:"commitment"`
	RecordHash string `json:"record_hash"`
	Leaf       string `json:"leaf"`
	LeafHash   string `json:"leaf_hash"`
}

func (v *vector) header() Header {
	return Header{Class: Class(v.Class), Lane: v.Lane, Session: v.Session, Sequence: v.Sequence, LaneSequence: v.LaneSeq, Time: v.Time}
}

// compute fills in what follows from the other fields.
func (v *vector) compute(t *testing.T) {
	t.Helper()
	seed := Seed(unhex(t, v.Seed))
	salt := seed.Salt(v.Sequence)
	commitment := Commit(&salt, unhex(t, v.Payload))
	leaf := Leaf{Origin: Origin(v.Origin), Index: v.Index, Mono: v.Mono, Wall: v.Wall, Prev: Hash(unhex(t, v.Prev)), Header: v.header(), Commitment: commitment}
	b := leaf.AppendBinary(nil)
	v.Header = hex.EncodeToString(v.header().AppendBinary(nil))
	v.Salt, v.Commitment = hex.EncodeToString(salt[:]), commitment.String()
	v.RecordHash, v.Leaf, v.LeafHash = leaf.RecordHash().String(), hex.EncodeToString(b), LeafHash(b).String()
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 3 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	return vectors
}

// TestVectors holds the format to its committed bytes. A difference means that
// old logs would no longer verify: the format must not change.
func TestVectors(t *testing.T) {
	vectors := readVectors(t)
	if *rewrite {
		for i := range vectors {
			vectors[i].compute(t)
		}
		text, err := json.MarshalIndent(vectors, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/vectors.json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range vectors {
		got := want
		got.compute(t)
		if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", want.Name, got, want)
		}
		leaf, err := ParseLeaf(unhex(t, want.Leaf))
		if err != nil {
			t.Errorf("%s: %v", want.Name, err)
			continue
		}
		if leaf.Header != want.header() || leaf.Index != want.Index || leaf.Mono != want.Mono || leaf.Wall != want.Wall || uint8(leaf.Origin) != want.Origin || leaf.Prev.String() != want.Prev || leaf.Commitment.String() != want.Commitment {
			t.Errorf("%s: parsed as %+v", want.Name, leaf)
		}
		if m, err := Decode(leaf.Header.Class, unhex(t, want.Payload)); err != nil {
			t.Errorf("%s: payload: %v", want.Name, err)
		} else if b, err := Encode(m); err != nil || hex.EncodeToString(b) != want.Payload {
			t.Errorf("%s: payload comes back as %x (%v)", want.Name, b, err)
		}
	}
}
