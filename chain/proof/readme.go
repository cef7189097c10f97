package proof

import (
	_ "embed"
	"fmt"
)

// verify.sh verifies an entry with openssl and a shell. It is part of the format: a
// reader compares, so another text of it is another version. The one of version 2
// did not look at the classes of the entries that it relied on. Version 4 brings texts of policies,
// of which the script knows nothing.
var (
	//go:embed verify-2.sh
	script2 []byte
	//go:embed verify.sh
	script3 []byte

	scripts = map[int][]byte{2: script2, 3: script3, 4: script3}
)

// readme returns README.txt: how to verify the bundle with tools that were
// written elsewhere.
func readme(b *Bundle) []byte {
	earlier := ""
	if len(b.Certificates) > 0 {
		earlier = "    vm-keys/N.*              likewise for key N, which was replaced; each signs the next\n"
	}
	texts := ""
	if len(b.Policies) > 0 {
		texts = `
The directory policies holds the text of each policy bundle that the entries name, below
its digest, as far as manifest.json does not say why it lacks. With it the verdicts can
be computed again, where the evidence begins at entry 0:

    provost verify --key trusted.vkey --replay BUNDLE.zip
`
	}
	return fmt.Appendf(nil, `Evidence from a Provost ledger

VM log    %s
host log  %s

Trust begins with your own copy of the host log's public key. Have it from
people, before you have this archive, in a file outside it: here it is called
../trusted.vkey. The file host.vkey in this archive proves nothing, because
whoever forges an archive writes the key into it; the program compares the two.

To verify all of it:

    provost verify --key trusted.vkey BUNDLE.zip

To verify one entry, from your own key to its payload, with openssl and a shell
alone (read the script first, it is short; and compare it with another copy of it, since
it came with the archive):

    unzip BUNDLE.zip -d evidence && cd evidence
    sh verify.sh ../trusted.vkey events/00000000

To verify all entries with tools that are not ours (filippo.io/torchwood),
first the host log with your own key, which quotes the VM log's checkpoint and
certifies its key:

    go install filippo.io/torchwood/cmd/spicy@v0.9.0
    spicy -verify "$(cat ../trusted.vkey)" vm-checkpoint.leaf vm-key.leaf

Then that the payload of the certificate is what its leaf commits to (two equal
lines) and that the key it certifies is the one in vm.vkey ("certified"):

    (printf 'provost/commitment/v1\000'; cat vm-key.payload) | openssl dgst -sha256 -r | cut -c1-64
    tail -c 32 vm-key.leaf | xxd -p -c 32
    VM=$(cut -d+ -f3- vm.vkey | base64 -d | tail -c 32 | xxd -p -c 64)
    xxd -p -c 1000000 vm-key.payload | grep -q "1220$VM" && echo certified

Only then the VM log, which holds the events and the agent's signed frames:

    spicy -verify "$(cat vm.vkey)" events/*.leaf
    [ ! -d frames ] || spicy -verify "$(cat vm.vkey)" frames/*.leaf

What is in it:

    manifest.json            which entries, why, and their place in a frame
    verify.sh                verifies one entry with openssl
    host.checkpoint          signed tree head of the host log
    vm.checkpoint            signed tree head of the VM log
    host.vkey, vm.vkey       copies of the keys, to compare with; they prove nothing
    vm-checkpoint.*          entry of the host log that quotes vm.checkpoint
    vm-key.*                 entry of the host log that certifies vm.vkey
%s    events/N.*               entry N of the VM log
    frames/N.*               entry N of the VM log: a statement the guest agent signed

    .leaf        the sealed bytes (136); the leaf hash is SHA-256(0x00 || leaf)
    .payload     salt (32 bytes) and payload; the last 32 bytes of the leaf are
                 SHA-256("provost/commitment/v1" || 0x00 || salt || payload)
    .tlog-proof  inclusion proof, c2sp.org/tlog-proof@v1
    .leaf.spicy  the same for spicy
%s`, b.VMOrigin, b.HostOrigin, earlier, texts)
}
