#!/bin/sh
# Names ports that are plugged in while the guest runs.
. /lib/provost-test/lib.sh
while :; do
	link_ports
	nap 0.2
done
