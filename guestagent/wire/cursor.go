package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// cursor reads a body. After the first field that is not there it only
// remembers that: the caller asks once, at the end.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n int, what string) []byte {
	if c.err != nil {
		return nil
	}
	if n > len(c.b) {
		c.err = fmt.Errorf("%s: %d bytes, only %d left", what, n, len(c.b))
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8(what string) uint8 {
	if v := c.take(1, what); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) u16(what string) uint16 {
	if v := c.take(2, what); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) u32(what string) uint32 {
	if v := c.take(4, what); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (c *cursor) u64(what string) uint64 {
	if v := c.take(8, what); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (c *cursor) fixed(dst []byte, what string) {
	if v := c.take(len(dst), what); v != nil {
		copy(dst, v)
	}
}

func (c *cursor) bytes32(limit int, what string) []byte {
	n := c.u32(what)
	if c.err == nil && n > uint32(limit) {
		c.err = fmt.Errorf("%s: %d bytes, limit %d", what, n, limit)
	}
	if c.err != nil {
		return nil
	}
	return c.take(int(n), what)
}

func (c *cursor) text(what string) string {
	n := c.u16(what)
	if c.err == nil && n > MaxText {
		c.err = fmt.Errorf("%s: %d bytes, limit %d", what, n, MaxText)
	}
	if c.err != nil {
		return ""
	}
	return string(c.take(int(n), what))
}

// done returns what was wrong, trailing bytes included.
func (c *cursor) done(message string) error {
	if c.err == nil && len(c.b) > 0 {
		c.err = fmt.Errorf("%d bytes behind the last field", len(c.b))
	}
	if c.err != nil {
		return fmt.Errorf("parse %s: %w: %w", message, c.err, record.ErrReject)
	}
	return nil
}

func appendText(b []byte, s string) []byte {
	if len(s) > MaxText {
		s = s[:MaxText]
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func appendBytes32(b, v []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}
