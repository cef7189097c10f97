#!/bin/bash
# chroot-test.sh tries what a newcomer does on a machine that has nothing but git, make and
# ca-certificates: it makes a Debian 12 system in a directory, clones the last commit of this
# repository into it, and runs "make setup build" and then "make demo" in there. A machine that is
# set up already hides what setup forgets.
#
#   hack/chroot-test.sh [TARGET...]     other targets than demo, such as test
#
# The system lies in $TMPDIR or in .cache and is removed at the end; KEEP=1 keeps it. It has its own
# mounts and process numbers, so whatever runs in it ends with this script. The machine's proxies,
# certificates and apt settings are handed on, because a system behind a proxy has no other way out.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

say() { echo "chroot-test: $*" >&2; }
die() {
	say "$*"
	exit 1
}
[ "$(id -u)" = 0 ] || die "this needs root: it makes file systems and starts virtual machines"
command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: make test-long installs it"
[ -d .git ] || die "this is no clone: there is nothing to clone from"
if [ -n "$(git status --porcelain)" ]; then
	say "what is not committed is not tried"
fi

# --- the system -----------------------------------------------------------------------------

mkdir -p .cache
dir=$(mktemp -d "${TMPDIR:-$PWD/.cache}/provost-chroot.XXXXXX")
clean() {
	if [ -n "${KEEP:-}" ]; then
		say "kept $dir"
	else
		rm -rf --one-file-system "$dir"
	fi
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The machine's settings for fetching: proxies, certificates, timeouts.
settings=$dir.apt
apt-config dump | grep '^Acquire::\(http\|https\|ftp\|Retries\|ForceIPv\)' >"$settings" || true
trap 'rm -f "$settings"; clean' EXIT

say "making a Debian 12 system in $dir"
mmdebstrap --quiet --variant=minbase --include=git,make,ca-certificates \
	--aptopt="$settings" \
	--components=main bookworm "$dir"
cp "$settings" "$dir/etc/apt/apt.conf.d/99machine"
for f in /etc/resolv.conf /etc/hosts; do
	[ ! -e "$f" ] || cp --remove-destination -L "$f" "$dir$f"
done
for d in /etc/ssl /usr/local/share/ca-certificates; do
	[ ! -d "$d" ] || { mkdir -p "$dir$d" && cp -a "$d/." "$dir$d/"; }
done
git clone --quiet --no-hardlinks "$repository" "$dir/root/provost"
say "trying $(git -C "$dir/root/provost" log -1 --format='%h, %s')"

# Only what leads to the network is handed on.
pass=()
for v in $(compgen -e); do
	case $v in
	*_proxy | *_PROXY | SSL_CERT_* | *_CA_BUNDLE | *_CAINFO | GOPROXY | GONOPROXY | GOSUMDB | GONOSUMDB | GOPRIVATE | PROVOST_*)
		pass+=("$v=${!v}")
		;;
	esac
done

# --- in it ----------------------------------------------------------------------------------

inside() {
	cd /root/provost
	for t in "$@"; do
		echo "chroot-test: make $t" >&2
		# shellcheck disable=SC2086 # "setup build" are two targets of one run
		make $t || exit 1
	done
}

enter='
	set -e
	mount --bind "$1" "$1"
	cd "$1"
	shift
	mount -t proc proc proc
	mount --rbind /sys sys
	mount --rbind /dev dev
	mount -t tmpfs -o mode=755 tmpfs run
	mkdir -p run/lock machine
	pivot_root . machine
	umount -l machine
	rmdir machine
	exec "$@"
'
[ $# -gt 0 ] || set -- demo
unshare --mount --propagation private --pid --fork --kill-child \
	sh -c "$enter" sh "$dir" /usr/bin/env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${pass[@]}" \
	/bin/bash -c "$(declare -f inside); inside \"\$@\"" bash "setup build" "$@"
say "passed: make setup build $*"
