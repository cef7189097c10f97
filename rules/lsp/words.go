package lsp

// blockDocs say what blocks are for; those of actions stand behind "action ".
var blockDocs = map[string]string{
	"bundle":     "Name, version and language of the bundle. One file has it.",
	"list":       "A named list of constants, used as `list.NAME`. Types: string, path, sha256, cidr.",
	"locals":     "Named constants, used as `local.NAME`.",
	"macro":      "A named condition, used as `macro.NAME`.",
	"policy":     "Which events matter, and what is done about them. The label is its identity in the bundle.",
	"target":     "Which VMs. Absent: all. Lists: any of; arguments: all of.",
	"exception":  "Matches that are meant to be: AND NOT its condition. It can expire.",
	"approval":   "AND NOT covered by a signed approval of the group.",
	"threshold":  "Fires when so many matches with one key lie in a sliding window.",
	"sequence":   "Fires when its steps happen in order, with one key, within a time.",
	"step":       "One step of a sequence. Later steps read its event as `step.NAME.FIELD`.",
	"reset":      "Drops a sequence that has begun.",
	"first_seen": "Fires for a combination of values that was not seen in the history.",
	"cooldown":   "One verdict for each key and period; the others are counted and reported.",
	"limit":      "How many destructive actions at most, and what is done beyond that.",
	"prevent":    "What the host's packet filter keeps the VM from, even if the guest agent is silent.",
	"action":     "What is done about a match, in order of writing.",
	"escalate":   "More actions once it keeps happening.",

	"action alert":          "Tells people.",
	"action pause":          "Pauses the VM (virDomainSuspend).",
	"action snapshot":       "Takes a snapshot of the VM.",
	"action detach_network": "Cuts the VM's network interfaces.",
	"action quarantine":     "Isolates the VM until somebody releases it.",
	"action kill_process":   "Has the guest agent kill the process.",
}

// argumentDocs say what arguments mean: of a block where "BLOCK.ARGUMENT" is
// there, else of every block.
var argumentDocs = map[string]string{
	"title":       "What people read. Default: the policy's name.",
	"description": "What it is about, in sentences.",
	"owner":       "Who answers for the policy.",
	"references":  "Where to read more.",
	"tags":        "Words to find policies by.",
	"severity":    "informational, low, medium (default), high or critical.",
	"attack":      "Techniques of MITRE ATT&CK, such as T1059.004.",
	"mode":        "off, audit (default): decided and sealed, not done; enforce. The weakest of policy, bundle, VM and host counts.",
	"on":          "The event types that are judged.",
	"condition":   "A truth about an event: fields, functions, `list.*`, `local.*`, `macro.*`, `&&`, `||`, `!`.",
	"on_error":    "What an error of the condition becomes: alert (default), ignore or treat_as_match.",
	"message":     "The text of the alert, with `${FIELD}` in it.",
	"channels":    "Channels of the host's configuration that get the alert. Default: all.",
	"by":          "Fields whose values together are the key.",
	"period":      "How long, such as \"5m\", \"12h\" or \"7d\".",
	"window":      "How long, such as \"60s\". It slides on the host's time.",
	"within":      "How long the whole sequence may take.",
	"history":     "How far back values are remembered.",
	"learn":       "For how long at the start everything is only learnt.",
	"max_keys":    "How many keys are held for each VM; what is given up beyond is reported.",
	"count":       "How many.",
	"distinct":    "Count different values of this field instead of matches.",
	"max":         "How many actions at most.",
	"per":         "In which time.",
	"then":        "What is done beyond the limit.",
	"scope":       "Whom it counts for.",
	"reason":      "Why the exception is there.",
	"expires":     "Last day of the exception, such as \"2027-03-31\".",
	"group":       "Group of approvers in the host's configuration.",
	"require":     "How many of the group must have signed.",
	"grace":       "How late an approval may come.",
	"allow":       "Prefixes that may be reached.",
	"deny":        "Prefixes that may not be reached.",
	"type":        "string, path, sha256 or cidr.",
	"values":      "The values of the list.",
	"file":        "File of the bundle with one value on each line.",
	"names":       "Names of VMs, with `*`, `?` and `[...]`.",
	"uuids":       "UUIDs of VMs.",
	"metadata":    "Keys and values of the VM's metadata.",
	"name":        "Name of the bundle.",
	"version":     "Version of the bundle.",
	"language":    "Version of the policy language: 1.",

	"target.condition":    "A truth about the VM: it may read `vm.*` only.",
	"target.tags":         "Tags of VMs.",
	"limit.scope":         "vm or host.",
	"prevent.scope":       "Which destinations it is about.",
	"step.by":             "Fields of this step's event that make the sequence's key.",
	"exception.condition": "What is meant to be.",

	"memory": "Whether the snapshot has the VM's memory.", "label": "Label of the snapshot.", "keep": "How many are kept.",
	"resume_after": "When the VM goes on by itself.", "interfaces": "Which interfaces; default all.", "network": "How the network is cut.",
	"pause": "Whether the VM is paused, too.", "release": "How it ends.", "signal": "The signal that is sent.",
}

// values are those of arguments that take one of a few; key as in argumentDocs.
var values = map[string][]string{
	"mode":          {"off", "audit", "enforce"},
	"severity":      {"informational", "low", "medium", "high", "critical"},
	"on_error":      {"alert", "ignore", "treat_as_match"},
	"limit.scope":   {"vm", "host"},
	"limit.then":    {"alert", "audit"},
	"prevent.scope": {"all", "external"},
	"network":       {"isolate", "keep"},
	"release":       {"manual"},
	"list.type":     {"string", "path", "sha256", "cidr"},
}

// lookup finds what is said of an argument of a block.
func lookup[T any](m map[string]T, block, argument string) (T, bool) {
	if v, ok := m[block+"."+argument]; ok {
		return v, true
	}
	v, ok := m[argument]
	return v, ok
}
