#!/bin/sh
# Runs provost-agent once; busybox init starts this script again when it ends. Tests hold the agent
# back with "agentctl stop".
. /lib/provost-test/lib.sh
while [ -e /run/provost-agent.stop ]; do
	nap 0.1
done
read -r args </lib/provost-test/agent-args
/usr/bin/provost-agent $args >>/var/log/provost-agent.log 2>&1 &
echo $! >/run/provost-agent.pid
wait $!
code=$?
rm -f /run/provost-agent.pid
echo "provost-agent ended with status $code" >>/var/log/provost-agent.log
echo "provost-agent ended with status $code" >/dev/console
nap 0.3
