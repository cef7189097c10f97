package api

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Kinds of tokens.
const (
	tokenQuery  = 'q'
	tokenStream = 's'
)

// token writes a place in the order of all logs so that its holder can give it
// back and read nothing from it: the block of kind, 3 zero bytes, 8 and 4 bytes
// big-endian, encrypted. Nothing is granted by a token: one that was made up
// leads to some other place among the entries that its holder may read.
func (s *Service) token(kind byte, place uint64, offset uint32) string {
	b := [aes.BlockSize]byte{kind}
	binary.BigEndian.PutUint64(b[4:], place)
	binary.BigEndian.PutUint32(b[12:], offset)
	s.cipher().Encrypt(b[:], b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (s *Service) cipher() cipher.Block {
	c, err := aes.NewCipher(s.Secret[:])
	if err != nil {
		panic("api: " + err.Error()) // the size of the key is right
	}
	return c
}

func (s *Service) position(p chain.Position) string { return s.token(tokenStream, p.Commit, p.Offset) }

// parseToken reads a token of the kind.
func (s *Service) parseToken(kind byte, text string) (place uint64, offset uint32, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != aes.BlockSize {
		return 0, 0, fmt.Errorf("want what an earlier answer gave: %w", record.ErrReject)
	}
	s.cipher().Decrypt(b, b)
	if b[0] != kind || b[1]|b[2]|b[3] != 0 {
		return 0, 0, fmt.Errorf("want what an earlier answer of this host gave: %w", record.ErrReject)
	}
	return binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint32(b[12:]), nil
}
