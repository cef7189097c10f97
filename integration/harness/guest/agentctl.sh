#!/bin/sh
# agentctl stop|kill|start|restart|status|log: the agent's switch for tests. stop waits until it has ended.
. /lib/provost-test/lib.sh
pid() { [ -e /run/provost-agent.pid ] && cat /run/provost-agent.pid; }
halt_agent() {
	touch /run/provost-agent.stop
	p=$(pid) || return 0
	kill "-$1" "$p" 2>/dev/null
	while [ -d "/proc/$p" ] && [ -e /run/provost-agent.pid ]; do nap 0.05; done
}
case $1 in
stop) halt_agent TERM ;;
kill) halt_agent KILL ;;
start) rm -f /run/provost-agent.stop ;;
restart) halt_agent TERM; rm -f /run/provost-agent.stop ;;
status) if p=$(pid); then echo "running $p"; else echo stopped; exit 3; fi ;;
log) cat /var/log/provost-agent.log ;;
*) echo "usage: agentctl stop|kill|start|restart|status|log" >&2; exit 2 ;;
esac
