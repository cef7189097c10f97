// Package keys holds the signing keys of provenance: it creates and loads the
// key files and turns them into signers and verifiers of signed notes. It
// promises that no other package sees a private key (invariant I9): what
// leaves here can sign a note or verify one, nothing else.
//
// A host has two keys. The host-log key lives long and is what auditors pin;
// the VM-log key signs every VM log of the host, is certified by an entry of the
// host log, and is replaced from time to time: the next one is signed by it, and
// it is destroyed, so that who takes over the host finds no key of the past.
//
// # Files
//
// Everything stands in one directory that only its owner can enter:
//
//	host-log.key  0600  private key of the host log
//	vm-log.key    0600  private key of the VM logs
//	vm-log.key.next, vm-log.key.old  0600  only while it is replaced
//	host.vkey     0644  public verifier key of the host log, to be handed out
//
// A private key file is text, two lines:
//
//	provost-key/v1 ed25519 <use>
//	<base64 of the 32-byte Ed25519 seed>
//
// where use is "host-log" or "vm-log". The first line is the format's magic
// and version and must not change. host.vkey is one line, a verifier key of
// c2sp.org/signed-note with the type byte 0x01 (Ed25519); its name is the
// origin of the host log.
package keys
