// Package attest verifies what guest agents have signed, for the verifiers of
// evidence and of stores, which know nothing of the channel's protocol. It is
// pure; the guest agent itself does not need it.
package attest

import (
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/guestagent/wire"
)

// Frame checks the signature of a frame statement with an Ed25519 public key
// and returns what the statement says. An error wraps record.ErrReject.
func Frame(statement, signature, key []byte) (proof.Frame, error) {
	if err := wire.VerifyStatement(key, statement, signature); err != nil {
		return proof.Frame{}, err
	}
	s, err := wire.ParseStatement(statement)
	if err != nil {
		return proof.Frame{}, err
	}
	return proof.Frame{Domain: s.Domain, Epoch: s.Epoch, Session: s.Session, Number: s.Frame, First: s.First, Count: s.Count, Root: s.Root}, nil
}
