package policy

import (
	"strings"
)

// aliases are the names that other tools give to our fields.
var aliases = map[string]string{
	"image": "process.executable", "exe": "process.executable", "process.exe": "process.executable",
	"process.path": "process.executable", "proc.exe": "process.executable", "proc.exepath": "process.executable",
	"binary": "process.executable", "process.binary": "process.executable", "process.image": "process.executable",
	"proc.name": "process.name", "comm": "process.name", "process.comm": "process.name",
	"commandline": "process.command_line", "cmd_line": "process.command_line", "cmdline": "process.command_line",
	"process.cmd_line": "process.command_line", "process.cmdline": "process.command_line",
	"proc.cmdline": "process.command_line", "process.commandline": "process.command_line",
	"proc.args": "process.args", "argv": "process.args", "process.argv": "process.args",
	"proc.pid": "process.pid", "pid": "process.pid", "ppid": "process.parent.pid", "process.ppid": "process.parent.pid",
	"proc.ppid": "process.parent.pid", "proc.pname": "process.parent.name", "proc.pexe": "process.parent.executable",
	"proc.aname": "process.ancestors", "parentimage": "process.parent.executable",
	"parentcommandline": "process.parent.command_line", "process.cwd": "process.working_directory",
	"proc.cwd": "process.working_directory", "cwd": "process.working_directory",
	"currentdirectory": "process.working_directory", "process.sha256": "process.hash.sha256",
	"hashes": "process.hash.sha256", "hash": "process.hash.sha256", "logonid": "user.id",
	"process.hash": "process.hash.sha256", "process.parent_name": "process.parent.name",
	"fd.name": "file.path", "filename": "file.path", "targetfilename": "file.path", "file": "file.path",
	"file.target": "file.target_path", "file.new_path": "file.target_path", "file.newpath": "file.target_path",
	"file.full_path": "file.path", "path": "file.path", "fd.directory": "file.directory", "file.dir": "file.directory",
	"destinationip": "destination.ip", "dst_ip": "destination.ip", "dst.ip": "destination.ip", "fd.sip": "destination.ip",
	"dest.ip": "destination.ip", "destination.address": "destination.ip", "daddr": "destination.ip",
	"destinationport": "destination.port", "dst_port": "destination.port", "dport": "destination.port", "fd.sport": "destination.port",
	"sourceip": "source.ip", "src_ip": "source.ip", "src.ip": "source.ip", "saddr": "source.ip", "source.address": "source.ip",
	"src_port": "source.port", "sport": "source.port", "initiated": "network.direction",
	"user": "user.name", "user.uid": "user.id", "uid": "user.id", "euid": "user.effective.id", "user.euid": "user.effective.id",
	"user.loginuid": "user.login.id", "gid": "user.group.id",
	"evt.type": "event.type", "type": "event.type", "event.kind": "event.category", "evt.time": "event.time",
	"timestamp": "event.time", "event.error": "event.result", "errno": "event.result",
	"vm.id": "vm.uuid", "domain.name": "vm.name", "domain.uuid": "vm.uuid", "domain": "vm.name", "host.name": "vm.name",
	"host.id": "vm.uuid", "vm.labels": "vm.tags", "vm.status": "vm.state",
	"kernel.module.name": "module.name", "kernel.module.path": "module.path", "imageloaded": "module.path", "module.file": "module.path",
	"queryname": "dns.question.name", "dns.query": "dns.question.name", "dns.question": "dns.question.name", "dns.answers": "dns.resolved_ip",
	"dns.rcode": "dns.response_code", "file.sha256": "file.hash.sha256", "file.hash": "file.hash.sha256", "memory.length": "memory.size",
	"target.pid": "process.object.pid", "targetimage": "process.object.executable", "process.target.pid": "process.object.pid",
	"file.link": "file.link_target", "fs.mount": "mount.operation", "user.saved_id": "user.saved.id", "suid": "user.saved.id",
	"auth.account": "user.name", "auth.success": "event.outcome", "network.name": "destination.domain",
	"process.capabilities": "process.thread.capabilities.effective", "caps": "process.thread.capabilities.effective",
}

// Suggest returns the member of names that a person who wrote word most likely meant, or
// "", as diagnostics do.
func Suggest(word string, names []string) string { return suggest(word, names) }

// suggest returns the member of names that a person who wrote word most likely
// meant, or "". An alias of another tool wins over a common beginning, and that
// over the smallest edit distance.
func suggest(word string, names []string) string {
	low := strings.ToLower(word)
	if a, ok := aliases[low]; ok {
		for _, n := range names {
			if n == a {
				return a
			}
		}
	}
	best, found := "", false
	for _, n := range names {
		if len(low) >= 3 && strings.HasPrefix(n, low) && (!found || len(n) < len(best)) {
			best, found = n, true
		}
	}
	if found {
		return best
	}
	limit := max(1, len(low)/4+1)
	for _, n := range names {
		if d := distance(low, n, limit); d <= limit {
			best, limit = n, d-1
		}
		if limit < 0 {
			break
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance of a and b in bytes, or limit+1
// where it is larger.
func distance(a, b string, limit int) int {
	if len(a) > 128 || len(b) > 128 || len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	var rows [3][129]int
	for j := range len(b) + 1 {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		older, prev, row := &rows[(i+2)%3], &rows[i%3], &rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, older[j-2]+1)
			}
			row[j] = d
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

// didYouMean returns a sentence for a suggestion, or "".
func didYouMean(s string) string {
	if s == "" {
		return ""
	}
	return " Did you mean \"" + s + "\"?"
}
