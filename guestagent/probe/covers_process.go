package probe

var processLSM = []cover{}

var processTracepoint = []cover{}
