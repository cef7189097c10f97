package proof

import "fmt"

// readme returns README.txt: how to verify the bundle with tools that were
// written elsewhere.
func readme(b *Bundle) []byte {
	return fmt.Appendf(nil, `Evidence from a Provost ledger

VM log    %s
host log  %s

To verify all of it, with the host's public key from a source you trust
(host.vkey in this archive is a copy for convenience and proves nothing):

    provost verify --key host.vkey BUNDLE.zip

To verify single entries with tools that are not ours (filippo.io/torchwood):

    go install filippo.io/torchwood/cmd/spicy@v0.9.0
    unzip BUNDLE.zip
    # the host log holds the VM log's checkpoint and certifies its key
    spicy -verify "$(cat host.vkey)" vm-checkpoint.leaf vm-key.leaf
    # the VM log holds the events and the agent's signed frames
    spicy -verify "$(cat vm.vkey)" events/*.leaf frames/*.leaf

What is in it:

    manifest.json            which entries, why, and their place in a frame
    host.checkpoint          signed tree head of the host log
    vm.checkpoint            signed tree head of the VM log
    vm-checkpoint.*          entry of the host log that quotes vm.checkpoint
    vm-key.*                 entry of the host log that certifies vm.vkey
    events/N.*               entry N of the VM log
    frames/N.*               entry N of the VM log: a statement the guest agent signed

    .leaf        the sealed bytes (136); the leaf hash is SHA-256(0x00 || leaf)
    .payload     salt (32 bytes) and payload; the last 32 bytes of the leaf are
                 SHA-256("provost/commitment/v1" || 0x00 || salt || payload)
    .tlog-proof  inclusion proof, c2sp.org/tlog-proof@v1
    .leaf.spicy  the same for spicy
`, b.VMOrigin, b.HostOrigin)
}
