#!/bin/sh
# Control shell of the harness, on a virtio-serial port of its own (org.provost.test.0); no product
# code knows it. One request a line:
#
#   PING id               -> PONG id boot_id
#   RUN id base64-script  -> BEGIN id status truncated / O id base64 ... / E id base64 ... / END id
#   KILL id               ends the session of RUN id; its reply still comes
#
# Ids are drawn by the harness for each request, so a reply meant for a harness that has gone is
# recognised and skipped. Requests run side by side; replies are written whole, one after another.
. /lib/provost-test/lib.sh
port=/dev/virtio-ports/org.provost.test.0
limit=4194304
mkdir -p /run/control
rmdir /run/control.lock 2>/dev/null
while [ ! -e "$port" ]; do nap 0.05; done
read -r boot </proc/sys/kernel/random/boot_id
exec 3<>"$port"

answer() {
	until mkdir /run/control.lock 2>/dev/null; do nap 0.02; done
	"$@" >&3
	rmdir /run/control.lock
}

reply() {
	truncated=0
	for f in out err; do
		[ "$(stat -c %s "$2/$f")" -le $limit ] || truncated=1
	done
	echo "BEGIN $1 $3 $truncated"
	head -c $limit "$2/out" | base64 -w 3000 | sed "s/^/O $1 /"
	head -c $limit "$2/err" | base64 -w 3000 | sed "s/^/E $1 /"
	echo "END $1"
}

run() {
	d=/run/control/$1
	mkdir -p "$d"
	printf %s "$2" | base64 -d >"$d/script"
	cd /
	setsid sh "$d/script" >"$d/out" 2>"$d/err" </dev/null 3<&- 9<&- &
	echo $! >"$d/pid"
	wait $!
	answer reply "$1" "$d" $?
	rm -rf "$d"
}

while :; do
	if ! read -r verb id arg <&3; then
		nap 0.05 # the harness is not connected: reads return at once
		continue
	fi
	case $verb in
	PING) answer echo "PONG $id $boot" ;;
	RUN) run "$id" "$arg" & ;;
	KILL) [ -e "/run/control/$id/pid" ] && kill -KILL -- "-$(cat "/run/control/$id/pid")" ;;
	esac
done
