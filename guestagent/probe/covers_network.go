package probe

import "github.com/provostd/provost/chain/record"

var (
	progConnect   = program{name: "on_tcp_connect", hook: "fentry/tcp_connect"}
	progSockState = program{name: "on_sock_state", hook: "tp_btf/inet_sock_set_state"}
)

var networkLSM = []cover{
	{class: record.ClassNetworkConnect, anyOf: [][]program{{progConnect, progSockState}}, limit: "TCP only"},
}

var networkTracepoint = []cover{
	{class: record.ClassNetworkConnect, needs: []program{progSockState}, limit: "TCP only; the source port is not known yet"},
}
