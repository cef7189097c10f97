#!/bin/bash
# chroot-test.sh tries what a newcomer does on a machine that has nothing but git, make and
# ca-certificates: it makes a Debian 12 system in a directory, clones the last commit of this
# repository into it, and runs "make setup build" and then "make demo" in there. A machine that is
# set up already hides what setup forgets.
#
#   hack/chroot-test.sh [TARGET...]     other targets than demo, such as test
#
# The system lies in $TMPDIR or in .cache and is removed at the end; KEEP=1 keeps it. It has its own
# mounts, and whatever still runs in it ends with this script. It has no process numbers of its own:
# the kernel's probes tell those of the machine. The machine's proxies, certificates and apt settings
# are handed on, because a system behind a proxy has no other way out.
set -euo pipefail

say() { echo "chroot-test: $*" >&2; }
die() {
	say "$*"
	exit 1
}

# make_system DIR SETTINGS: Debian 12 with what the machine needs to reach the network.
make_system() {
	say "making a Debian 12 system in $1"
	mmdebstrap --quiet --variant=minbase --include=git,make,ca-certificates \
		--aptopt="$2" --components=main bookworm "$1"
	cp "$2" "$1/etc/apt/apt.conf.d/99machine"
	for f in /etc/resolv.conf /etc/hosts; do
		[ ! -e "$f" ] || cp --remove-destination -L "$f" "$1$f"
	done
	for d in /etc/ssl /usr/local/share/ca-certificates; do
		[ ! -d "$d" ] || { mkdir -p "$1$d" && cp -a "$d/." "$1$d/"; }
	done
	git clone --quiet --no-hardlinks "$PWD" "$1/root/provost"
	say "trying $(git -C "$1/root/provost" log -1 --format='%h, %s')"
}

# inhabitants DIR: the processes whose root directory is that of the system.
inhabitants() {
	root=$(stat -c %d:%i "$1")
	for p in /proc/[0-9]*; do
		if [ "$(stat -L -c %d:%i "$p/root" 2>/dev/null)" = "$root" ]; then echo "${p#/proc/}"; fi
	done
}

clean() {
	rm -f "$settings"
	left=$(inhabitants "$dir")
	# shellcheck disable=SC2086 # a list of numbers
	[ -z "$left" ] || { say "ending what still runs:" $left && kill -KILL $left || true; }
	if [ -n "${KEEP:-}" ]; then
		say "kept $dir"
	else
		rm -rf --one-file-system "$dir"
	fi
}

# Run in namespaces of their own: the system becomes the root directory, and the machine's is left.
enter='
	set -e
	mount --bind "$1" "$1"
	cd "$1"
	shift
	mount --rbind /proc proc
	mount --rbind /sys sys
	mount --rbind /dev dev
	mount -t tmpfs -o mode=755 tmpfs run
	mkdir -p run/lock machine
	pivot_root . machine
	umount -l machine
	rmdir machine
	exec "$@"
'

# Run in the system.
inside() {
	cd /root/provost
	for t in "$@"; do
		echo "chroot-test: make $t" >&2
		# shellcheck disable=SC2086 # "setup build" are two targets of one run
		make $t || exit 1
	done
}

# Everything is read before anything runs: a script that is changed while it runs would go on anywhere.
main() {
	cd "$(dirname "$0")/.."
	[ "$(id -u)" = 0 ] || die "this needs root: it makes file systems and starts virtual machines"
	command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: make test-long installs it"
	git rev-parse --quiet --verify HEAD >/dev/null || die "this is no clone with a commit: there is nothing to clone from"
	[ -z "$(git status --porcelain)" ] || say "what is not committed is not tried"

	mkdir -p .cache
	dir=$(mktemp -d "${TMPDIR:-$PWD/.cache}/provost-chroot.XXXXXX")
	settings=$dir.apt
	trap clean EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	apt-config dump | grep '^Acquire::\(http\|https\|ftp\|Retries\|ForceIPv\)' >"$settings" || true
	make_system "$dir" "$settings"

	pass=() # of the environment, only what leads to the network
	for v in $(compgen -e); do
		case $v in
		*_proxy | *_PROXY | SSL_CERT_* | *_CA_BUNDLE | *_CAINFO | GOPROXY | GONOPROXY | GOSUMDB | GONOSUMDB | GOPRIVATE | PROVOST_*)
			pass+=("$v=${!v}")
			;;
		esac
	done

	[ $# -gt 0 ] || set -- demo
	# In the background, so that a signal ends the wait, and clean whatever runs.
	unshare --mount --propagation private \
		sh -c "$enter" sh "$dir" /usr/bin/env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${pass[@]}" \
		/bin/bash -c "$(declare -f inside); inside \"\$@\"" bash "setup build" "$@" &
	wait $!
	say "passed: make setup build $*"
}

main "$@"
exit
