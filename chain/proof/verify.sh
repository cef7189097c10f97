#!/bin/sh
# Verifies one entry of this bundle with openssl (3.0 or newer) and the usual tools
# of a shell, and nothing of Provost: a reader can follow every step.
#
#   sh verify.sh KEYFILE ENTRY
#
# KEYFILE holds the verifier key of the host log, from where you trust it; never
# host.vkey of this bundle. ENTRY is the name of an entry's files without suffix,
# such as events/00000012 or vm-key. Run it in the unpacked bundle. It ends with 0
# and "verified" only if the entry is in a log which that key has signed.
set -u
LC_ALL=C
export LC_ALL

die() { echo "NOT verified: $*" >&2; exit 1; }
[ $# -eq 2 ] || die "usage: sh verify.sh KEYFILE ENTRY"
dir=$(mktemp -d) || die "there is no room for temporary files"
trap 'rm -rf "$dir"' EXIT

sha256() { openssl dgst -sha256 -binary; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
size() { wc -c < "$1" | tr -d ' '; }

# decode TEXT FILE: base64, in the one form that it has.
decode() {
	printf '%s' "$1" | openssl base64 -d -A > "$2" && [ "$(openssl base64 -A < "$2")" = "$1" ]
}

# key FILE: "NAME+ID+BASE64", where BASE64 is 0x01 and an Ed25519 key and ID begins the hash of
# both, becomes $name, $id and the key in the form that openssl reads.
key() {
	vkey=$(head -n 1 "$1") || die "there is no $1"
	name=${vkey%%+*}
	decode "${vkey#*+*+}" "$dir/raw" || die "$1 is no verifier key"
	[ "$(size "$dir/raw")" = 33 ] && [ "$(head -c 1 "$dir/raw" | hex)" = 01 ] || die "$1 is no Ed25519 verifier key"
	id=$({ printf '%s\n' "$name"; cat "$dir/raw"; } | sha256 | head -c 4 | hex)
	[ "$vkey" = "$name+$id+${vkey#*+*+}" ] || die "$1 is no verifier key: its id is not that of its name and key"
	{ printf '\060\052\060\005\006\003\053\145\160\003\041\000'; tail -c 32 "$dir/raw"; } > "$dir/der"
}

# class FILE: origin and class of a leaf, as they stand in it: 02 is the host, 0005 a
# quoted checkpoint, 0006 the certificate of a key, 1102 the frame of an agent.
class() { echo "$(head -c 5 "$1" | tail -c 1 | hex) $(head -c 68 "$1" | tail -c 2 | hex)"; }

# entry BASE: the leaf's hash and its path make the root, the root stands in a
# checkpoint, and the key has signed that.
entry() {
	[ -f "$1.leaf" ] && [ -f "$1.tlog-proof" ] || die "there is no entry $1"
	[ "$(size "$1.leaf")" = 136 ] && [ "$(head -c 4 "$1.leaf" | hex)" = 50564c31 ] || die "$1.leaf is no leaf"
	{ read -r magic; read -r index; } < "$1.tlog-proof"
	[ "$magic" = c2sp.org/tlog-proof@v1 ] || die "$1.tlog-proof is no proof"
	n=${index#index }
	case $n in '' | *[!0-9]* | ???????????????????*) die "$1.tlog-proof has no index" ;; esac
	# Lines 1 to the first empty one are index and path, then comes the note.
	sed '1,2d;/^$/,$d' "$1.tlog-proof" > "$dir/path"
	sed '1,/^$/d' "$1.tlog-proof" > "$dir/note"
	sed '/^$/,$d' "$dir/note" > "$dir/text"
	[ "$(sed -n 1p "$dir/text")" = "$name" ] || die "$1 is in the log $(sed -n 1p "$dir/text"), the key is that of $name"
	total=$(sed -n 2p "$dir/text")
	case $total in '' | *[!0-9]* | ???????????????????*) die "the checkpoint has no size" ;; esac
	[ "$(sed -n '$=' "$dir/text")" = 3 ] && [ "$n" -lt "$total" ] || die "the checkpoint does not cover $1"
	[ "$(head -c 16 "$1.leaf" | tail -c 8 | hex)" = "$(printf %016x "$n")" ] || die "$1.leaf is not entry $n"

	{ printf '\000'; cat "$1.leaf"; } | sha256 > "$dir/hash"
	last=$((total - 1))
	while read -r line; do
		decode "$line" "$dir/node" || die "the path of $1 is no base64"
		[ "$(size "$dir/node")" = 32 ] && [ "$last" -gt 0 ] || die "the path of $1 does not fit"
		if [ $((n % 2)) = 1 ] || [ "$n" = "$last" ]; then
			{ printf '\001'; cat "$dir/node" "$dir/hash"; } | sha256 > "$dir/up"
			while [ $((n % 2)) = 0 ] && [ "$n" != 0 ]; do n=$((n / 2)) last=$((last / 2)); done
		else
			{ printf '\001'; cat "$dir/hash" "$dir/node"; } | sha256 > "$dir/up"
		fi
		mv "$dir/up" "$dir/hash"
		n=$((n / 2)) last=$((last / 2))
	done < "$dir/path"
	decode "$(sed -n 3p "$dir/text")" "$dir/root" || die "the checkpoint over $1 has no root"
	[ "$last" = 0 ] && cmp -s "$dir/hash" "$dir/root" || die "leaf and path of $1 do not make the root of the checkpoint"

	signed=
	sed '1,/^$/d' "$dir/note" > "$dir/lines"
	while read -r dash who sig; do
		[ "$dash" = "$(printf '\342\200\224')" ] && [ "$who" = "$name" ] || continue
		decode "$sig" "$dir/sig4" || continue
		[ "$(size "$dir/sig4")" = 68 ] && [ "$(head -c 4 "$dir/sig4" | hex)" = "$id" ] || continue
		tail -c 64 "$dir/sig4" > "$dir/sig"
		if openssl pkeyutl -verify -pubin -keyform DER -inkey "$dir/der" -rawin -in "$dir/text" -sigfile "$dir/sig" > "$dir/out" 2>&1; then signed=1; fi
	done < "$dir/lines"
	[ -n "$signed" ] || die "the key of $name has not signed the checkpoint over $1"

	# Salt and payload are what the leaf commits to, where they are disclosed.
	if [ -f "$1.payload" ]; then
		{ printf 'provost/commitment/v1\000'; cat "$1.payload"; } | sha256 > "$dir/hash"
		tail -c 32 "$1.leaf" | cmp -s - "$dir/hash" || die "$1.payload is not what its leaf commits to"
	fi
}

case $2 in
events/* | frames/*)
	# The host log certifies the key of the VM log and quotes its checkpoint.
	key "$1"
	entry vm-key
	entry vm-checkpoint
	# Other entries of the host log repeat what guests and readers say.
	[ "$(class vm-key.leaf)" = "02 0006" ] || die "vm-key is not the certificate of a key"
	[ "$(class vm-checkpoint.leaf)" = "02 0005" ] || die "vm-checkpoint does not quote a checkpoint"
	key vm.vkey
	case $(tail -c +33 vm-key.payload | hex) in
	0a06766d2d6c6f671220"$(tail -c 32 "$dir/raw" | hex)"*) ;;
	*) die "the host log does not certify the key in vm.vkey" ;;
	esac
	case $(hex < vm-checkpoint.payload) in
	*"$(hex < vm.checkpoint)") ;;
	*) die "the host log does not quote vm.checkpoint" ;;
	esac
	entry "$2"
	cmp -s "$dir/note" vm.checkpoint || die "$2 is under another checkpoint than vm.checkpoint"
	case $2,$(class "$2.leaf") in
	frames/*,"02 1102") ;;
	frames/*) die "$2 is not the frame of an agent" ;;
	events/*,*" 1102") die "$2 is the frame of an agent, and no event" ;;
	esac
	;;
*)
	key "$1"
	entry "$2"
	;;
esac
set -- "$2" $(class "$2.leaf")
case $2 in 01) who=guest ;; 02) who=host ;; 03) who=policy ;; 04) who=operator ;; *) die "$1.leaf has no origin" ;; esac
echo "verified: $1 is entry ${index#index } of $name, of class 0x$3, on the word of: $who"
