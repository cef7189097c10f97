// Package approval reads and verifies signed approvals: statements in which
// approvers, who write no policies, allow ahead of time what a policy would
// otherwise report. It is pure: no clock, no IO.
//
// # Statements
//
// A statement is JSON (RFC 8259) in exactly one form: the fields below in this
// order, two blanks of indentation for each level, fields that are optional left
// out where they are empty, no escapes but those that encoding/json makes
// without its HTML option, and one newline at the end. Whatever differs in one
// byte is refused, so that no two readers can see two meanings in what was signed.
// An approval, of at most 16384 bytes:
//
//	type          "provost-approval/v1"
//	id            3 to 64 of A-Z a-z 0-9 . _ : - ; never used twice on a host
//	host          the host_id of the one host that it is for
//	group         whose approval it is, see Group
//	policies      names of the policies that it covers, 1 to 64
//	vms           UUIDs in lower case of the VMs that it covers, 1 to 256
//	scope         what it covers of that; {} is all
//	  on          event types; absent: all
//	  condition   as in policies, without list, local and macro; absent: true
//	  content     digests in lower-case hexadecimal of which the content that the
//	    sha256    entry tells of has one; absent: any content
//	not_before    UTC, such as 2026-11-23T20:00:00Z
//	not_after     UTC; it has ended behind this second
//	max_uses      how many entries of each VM it covers, 1 to 1000000
//	requested_by  who wants it; a signature of this principal does not count
//	reason        for people
//	issued        UTC, when it was made
//	nonce         32 hexadecimal digits
//
// A revocation, of at most 16384 bytes, ends an approval at once:
//
//	type          "provost-approval-revocation/v1"
//	id            of the approval
//	host, group   as in the approval
//	revoked_by    for people
//	reason        for people
//	issued        UTC
//	nonce         32 hexadecimal digits
//
// A release, of at most 16384 bytes, lets holds of a VM end whose policy wants two
// persons for that:
//
//	type          "provost-release/v1"
//	host, group   as in an approval
//	vm            UUID in lower case
//	holds         the origin of a log, the entry of a verdict in it and which of its
//	              actions it is, with blanks between; in order
//	requested_by  who wants it; a signature of this principal does not count
//	reason        for people
//	not_after     UTC
//	issued        UTC
//	nonce         32 hexadecimal digits
//
// # Signatures
//
// Signatures are SSH signatures (OpenSSH's PROTOCOL.sshsig), over the bytes of the
// statement, with the namespace "provost-approval@v1" and the hash sha512 or
// sha256, as "ssh-keygen -Y sign -n provost-approval@v1" makes them. Keys are of
// the types ssh-ed25519, ecdsa-sha2-nistp256, -384, -521, their hardware forms
// sk-ssh-ed25519@openssh.com and sk-ecdsa-sha2-nistp256@openssh.com, whose
// signatures must tell that somebody touched the key, and ssh-rsa of 2048 to
// 8192 bits with rsa-sha2-256 or rsa-sha2-512. Several signatures over the same
// bytes are so many signers.
//
// # Trust roots
//
// Which keys count is said by Roots, in the configuration of the host: who writes
// policies does not choose who approves. Its text, which is sealed, is JSON of the
// same form: groups in order of name, each with name, require, max_duration (in
// seconds) and keys in order of principal and public_key, each with principal,
// public_key (type and base64, nothing else), not_before and not_after (left out:
// open).
package approval
