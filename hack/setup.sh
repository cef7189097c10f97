#!/bin/sh
# setup.sh brings a Debian 12 machine to the point where everything here builds, runs and is tested:
# it installs what is missing, finds or fetches Go, and writes .cache/env.mk for the Makefile.
# It may be run at any time; when all is there it changes nothing and takes a moment. Each step
# prints one line, and only when it does something.
#
# PROVOST_IGNORE_GO=1 leaves Go installations outside .cache alone, to test the way without them.
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache
want=go1.26.8 # what is fetched when the machine has no Go of at least 1.26

# What each package is for:
#   gcc libc6-dev                           cgo, for provostd (libvirt itself is loaded at run time)
#   libvirt-* qemu-* dnsmasq-base           hosts and guests of tests and demo
#   debian-archive-keyring                  keys of the release whose kernel 5.10 guests boot
#   systemd                                 systemd-analyze, which tests the unit of the daemon
#   iproute2 util-linux kmod xz-utils cpio busybox-static   namespaces and guest images
#   e2fsprogs xfsprogs                      file systems that tests make inside guests
#   openssh-client sqlite3                  ssh-agent and the database of a real witness, which tests start
#   graphviz                                reads the graphs of lineage in a test
#   clang-14 llvm-14 libbpf-dev linux-libc-dev protobuf-compiler   generated code, which tests make again and compare
packages="ca-certificates debian-archive-keyring git make gcc libc6-dev
	libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils dnsmasq-base
	iproute2 util-linux kmod xz-utils cpio busybox-static procps systemd e2fsprogs xfsprogs openssh-client sqlite3 graphviz
	clang-14 llvm-14 libbpf-dev linux-libc-dev protobuf-compiler"
# Arguments name further packages: the long tests need some more.
packages="$packages $*"

say() { echo "setup: $*" >&2; }
die() {
	say "$*"
	exit 1
}

# --- packages -------------------------------------------------------------------------------

# missing PACKAGE...: the packages that are not installed.
missing() {
	# dpkg-query fails when it does not know one of them and still lists the others.
	have=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true)"
	for p in "$@"; do
		case $have in
		*" installed:$p "*) ;;
		*) printf '%s ' "$p" ;;
		esac
	done
}

policy=/usr/sbin/policy-rc.d
mark='placed by provost setup.sh: no service is started while it installs packages'

remove_policy() {
	if grep -qs "$mark" $policy; then rm -f $policy; fi
}

# install PACKAGE...: without recommendations, and without starting what has services.
install() {
	[ "$(id -u)" = 0 ] || die "missing packages: $*; run this as root, or install them with apt-get install --no-install-recommends"
	trap remove_policy EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	if [ ! -e $policy ]; then # one that is there is the administrator's and stands
		printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >$policy
		chmod 755 $policy
	fi
	mkdir -p "$cache"
	export DEBIAN_FRONTEND=noninteractive
	if [ -z "${updated:-}" ]; then
		say "updating package lists"
		apt-get -q -o DPkg::Lock::Timeout=300 update >"$cache/apt.log" 2>&1 || die "apt-get update failed: $(tail -n 3 "$cache/apt.log")"
		updated=1
	fi
	say "installing $*"
	apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@" >>"$cache/apt.log" 2>&1 ||
		die "apt-get install failed, see $cache/apt.log: $(tail -n 3 "$cache/apt.log")"
	remove_policy
}

command -v dpkg-query >/dev/null || die "this is no Debian; install by hand what corresponds to: $packages, and Go 1.26 or newer"
# shellcheck disable=SC2086 # a list of names
absent=$(missing $packages)
# shellcheck disable=SC2086
[ -z "$absent" ] || install $absent

# --- Go -------------------------------------------------------------------------------------

# minor GO: N of its version 1.N, or nothing if it does not run. Asked in / so that no go.mod has a say.
minor() {
	v=$(cd / && GOTOOLCHAIN=local GOFLAGS='' "$1" env GOVERSION 2>/dev/null) || return 0
	v=${v#go1.}
	v=${v%%[!0-9]*}
	echo "$v"
}

# Go from the module golang.org/toolchain, which any Go with modules can download and check
# against the checksum database.
fetched=$cache/go/golang.org/toolchain@v0.0.1-$want.linux-amd64

candidates() {
	if [ -z "${PROVOST_IGNORE_GO:-}" ]; then
		command -v go || true
		echo /usr/local/go/bin/go
		for d in /usr/lib/go-*; do echo "$d/bin/go"; done
	else
		echo /usr/lib/go-1.19/bin/go
	fi
}

# find_go sets go, and toolchain where go has to fetch a newer one by itself.
find_go() {
	go='' toolchain=''
	if [ -e "$fetched/ready" ]; then
		go=$fetched/bin/go
	fi
	for c in $(candidates); do
		[ -x "$c" ] || continue
		m=$(minor "$c")
		if [ "${m:-0}" -ge 26 ]; then
			go=$c toolchain=''
			return
		fi
		if [ -z "$go" ] && [ "${m:-0}" -ge 21 ]; then
			go=$c toolchain=$want
		fi
	done
	[ -n "$go" ]
}

# fetch_go has Debian's Go download the toolchain module.
fetch_go() {
	old=''
	for c in $(candidates); do
		if [ -x "$c" ] && [ -n "$(minor "$c")" ]; then old=$c; fi
	done
	if [ -z "$old" ]; then
		install golang-go
		old=$(command -v go) || die "golang-go is installed and there is no go on the PATH"
	fi
	say "fetching $want"
	# The checksum database must stay on whatever the environment says: it is what makes this download safe.
	log=$cache/go.log
	(cd / && env GOFLAGS=-modcacherw GOMODCACHE="$cache/go" GO111MODULE=on GONOSUMDB= GOPRIVATE= GOINSECURE= GOSUMDB=sum.golang.org \
		"$old" mod download "golang.org/toolchain@v0.0.1-$want.linux-amd64") >"$log" 2>&1 ||
		die "fetching $want failed, see $log: $(tail -n 3 "$log")"
	# Modules carry no execute permission and no nested go.mod: both are put back, as the go command itself does.
	chmod +x "$fetched"/bin/* "$fetched"/pkg/tool/*/*
	find "$fetched" -name _go.mod | while read -r f; do cp "$f" "${f%_go.mod}go.mod"; done
	(cd / && GOTOOLCHAIN=local "$fetched/bin/go" version) >>"$log" 2>&1 || die "the $want that was fetched does not run, see $log"
	: >"$fetched/ready"
	rm -rf "$cache/go/cache/download/golang.org/toolchain"
}

if ! find_go; then
	fetch_go
	find_go || die "no usable Go"
fi
if [ -n "$toolchain" ] && [ ! -e "$cache/toolchain-$want" ]; then
	say "having $go fetch $want"
	out=$(cd / && GOTOOLCHAIN=$want "$go" version 2>&1) || die "$go cannot fetch $want: $out"
	mkdir -p "$cache"
	: >"$cache/toolchain-$want"
fi

# --- for the Makefile -----------------------------------------------------------------------

env="GO := $go
export GOTOOLCHAIN := ${toolchain:-local}"
if [ "$env" != "$(cat "$cache/env.mk" 2>/dev/null || true)" ]; then
	mkdir -p "$cache"
	printf '%s\n' "$env" >"$cache/env.mk.tmp"
	mv "$cache/env.mk.tmp" "$cache/env.mk"
	say "using $go${toolchain:+ with $toolchain}"
fi
