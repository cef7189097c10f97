# Configuration of provostd, with every setting that there is. Copy it to
# /etc/provost/provostd.hcl. What is commented out shows the default; an empty
# file is valid. Settings are read at the start; "provostd check" checks the
# file, and the policies it names, without starting anything.

# Name of this host, the first part of the names of all its logs. Lower-case
# letters, digits, "-" and ".". It is written into the ledger by
# "provostd init" and cannot change afterwards. Default: the host name.
host_id = "kvm1.example.net"

# Directory of the ledger (ledger/) and of the signing keys (keys/). An
# absolute path; only root may enter it.
# state_dir = "/var/lib/provost"

# File that holds the newest published checkpoint of the host log. It tells a
# ledger that was rolled back, so it must not lie in state_dir, and it is worth
# most on another disk, one that no snapshot or backup of state_dir takes along.
# An absolute path.
# anchor = "/var/lib/provost-anchor/anchor"

# Directory of the keys that payloads are encrypted under, one for each log and
# hour. It must not lie in state_dir: erasing destroys keys here, and copies of
# the ledger made before are of no use then. Without it no payload can be read:
# back it up apart from the ledger, and forget those copies when you erase.
# payload_keys = "/var/lib/provost-payload-keys"

# Directory of the policy bundle, an absolute path. Default: no policies; the
# history is kept all the same. A bundle that does not load keeps the daemon
# from starting. A changed bundle comes in force at SIGHUP or the next start; provost
# policy apply brings one in force without it.
policies = "/etc/provost/policies"

# The strongest mode that any policy has on this host: "off" (not evaluated),
# "audit" (verdicts are sealed, nothing is done), "enforce". Start with "audit".
# mode = "enforce"

# How much the daemon logs: debug, info, warn or error.
# log_level = "info"

libvirt {
  # The libvirt whose domains are kept.
  # uri = "qemu:///system"

  # Where libvirt's QEMU driver keeps its pid files: what a channel's peer is
  # compared with. An absolute path.
  # run_dir = "/run/libvirt/qemu"

  # Where libvirt keeps the domains' configurations and managed saves: what
  # stands there is compared with what libvirt says.
  # config_dir = "/etc/libvirt/qemu"
  # save_dir = "/var/lib/libvirt/qemu/save"

  # How often every domain is looked at for what libvirt does not announce,
  # beside after each event.
  # sweep_every = "60s"

  # The kernel's audit log, in which libvirt says for whom it starts and stops
  # domains. Left out: none is read. An absolute path.
  # audit_log = "/var/log/audit/audit.log"

  # How many bytes of images are read in a second for their digests, in bytes.
  # image_rate = 67108864
}

api {
  # Unix socket of the command line. Root may use it, and group. An absolute
  # path.
  # socket = "/run/provost/provostd.sock"

  # Members of this group may use the socket as root may: they read everything
  # and may stop agents. Under systemd the unit needs SupplementaryGroups= with
  # it. Default: none.
  # group = ""

  # Address on this host of /metrics and of the logs as tiles (/logs/), over
  # plain HTTP and without passwords, so it must be a loopback address: a block
  # listener serves others. Tiles hold no payloads. "off": none.
  # listen = "127.0.0.1:9477"

  # File of the bearer tokens, mode 0600, with their SHA-256 only. "provostd
  # token" makes, lists and revokes them. An absolute path.
  # tokens = "/etc/provost/tokens"

  # Requests a second of one identity over TLS, sustained; five times that at
  # once. 32 tiles of a log count as one. Each disclosure of payloads is an entry
  # of the host log.
  # requests_per_second = 20

  # Exports, queries and the like that one identity may have running at once.
  # expensive_requests = 4

  # The same of all identities together, over TLS; at least twice as many as of one.
  # Of the second half of them each identity has one.
  # expensive_requests_all = 32

  # Connections that one listener takes at once, a quarter of them from one
  # address.
  # connections = 256
}

# A block for each address at which others than this host may read: TLS 1.3 and
# nothing else. Who they are is known by a client certificate, a token, or both
# are taken. Certificates may be replaced at any time. The unit lets only
# this host in: IPAddressAllow= in it has to name the clients too.
# listener "0.0.0.0:9478" {
#   # Certificate with its chain, and its key, PEM. Absolute paths.
#   certificate = "/etc/provost/tls/server.pem"
#   key = "/etc/provost/tls/server.key"
#
#   # CAs of client certificates, PEM. Use one of your own: whoever it certifies
#   # gets as far as the identities below. Default: no certificates are taken.
#   client_ca = "/etc/provost/tls/clients.pem"
#
#   # Files of the revocation lists of these CAs, PEM or DER, one current list of each
#   # CA that has signed clients or their CAs. Where a list is missing, or older than
#   # it says it may be, no certificate of its CA is taken. They may be replaced at any
#   # time. Default: certificates are good until they expire.
#   client_crl = ["/etc/provost/tls/clients.crl"]
#
#   # Whether tokens are taken. Default false.
#   tokens = true
# }

# A block for each holder of a client certificate.
# identity "acme" {
#   # operator: reads everything and has the daemon act; auditor: reads
#   # everything; tenant: reads the logs of some domains.
#   role = "tenant"
#
#   # Of a tenant: the UUIDs of these domains.
#   domains = ["0b0f6fc4-5cc5-4f6c-9ab1-6a3a1f7c2d10"]
#
#   # Names in the certificate, any of which will do, with their kind: dns:,
#   # email: and uri: are subject alternative names, cn: is the common name.
#   certificates = ["uri:spiffe://example.net/acme"]
# }

# What one domain may cost. A guest over its quota is not dropped but read more
# slowly, until its own agent has to drop and say so.
guest {
  # Records a second, sustained; a burst may be as many at once.
  # records_per_second = 20000

  # Bytes a second, sustained; a burst may be as many at once. 16 MiB.
  # bytes_per_second = 16777216

  # An agent that gives no sign of life for this long, while its domain runs,
  # is sealed as silent. From "6s", three heartbeats, to "2m".
  # silent_after = "10s"

  # The same for an agent that has not been heard of since its domain
  # started. From "1s" to "24h".
  # boot_grace = "120s"

  # How often agent and host tell each other that they are there, from "500ms" to
  # "30s". silent_after is three of them at least.
  # heartbeat = "2s"

  # What every agent must observe; less is sealed as agent.coverage_low. Event types
  # that a hook must see, and by what: lsm (BPF LSM) or any.
  # covers = ["process.exec", "file.modify", "file.rename", "network.connect"]
  # probe  = "lsm"
}

# How often tree heads are signed, from "100ms" to "1h". Stop, pause and export
# sign at once, whatever stands here.
checkpoints {
  # A VM log that has grown.
  # vm = "1s"

  # The host log, if it has grown; the anchor file is written as often.
  # host = "1s"

  # VM checkpoints are quoted in the host log: what happens in between can be
  # tied to the host log only up to the last quote. Witnesses are asked as often.
  # quote = "10s"
}

# The key that signs the VM logs. It is replaced by one that the host log
# certifies and the old key signs, and destroyed: who takes over the host later
# finds no key of the past. "provostd rotate-keys" does it at once.
keys {
  # Age at which it is replaced, from "1m"; "24h" is one key a day. "off": only
  # when it is asked for.
  # rotate = "off"
}

# How long parts of VM logs are kept, in days (d), years (y) or hours (h), from when
# an entry was sealed. What is left out is kept for ever, and so are checkpoints and
# the host log. Payloads go first, then leaves, then tiles: nothing outlasts what
# proves it. Each step is sealed before it is done.
retention {
  # What guests have said (paths, arguments, addresses) and verdicts that quote it.
  # It is erased by whole hours, with its keys.
  # payloads = "30d"

  # The entries themselves, in steps of 65,536.
  # leaves = "180d"

  # Their hashes, which prove that an entry was there.
  # tiles = "5y"

  # Another retention for one domain, named by its UUID, in the place of the one
  # above.
  # domain "0b0f6fc4-5cc5-4f6c-9ab1-6a3a1f7c2d10" {
  #   payloads = "7d"
  # }
}

# When the log of a domain is closed and goes on in another shard, whose first
# entry quotes the last checkpoint. It is closed at the end of an incarnation too.
shards {
  # Entries, 65536 or more.
  # entries = 16777216

  # Age of a shard.
  # age = "30d"
}

# What policies may have done on this host.
enforcement {
  # Actions that change domains, of all policies together, in a minute. 0: no bound.
  # actions_per_minute = 0

  # Share of the running domains that may be paused or cut off at a time, in
  # percent; one always may. 0: no bound.
  # max_held_percent = 0

  # The libvirt network for detach_network with mode = "isolate". Default: none,
  # and such policies are refused.
  # isolated_network = ""

  # Networks that the packet filter leaves to a quarantined domain.
  # quarantine_allow = []

  # The approver_group of which somebody else must sign the release of a
  # quarantine with release = "two-person". Default: none, and such policies are refused.
  # release_group = ""

  # Where the memory of snapshots goes. Default: state_dir with -snapshots behind it.
  # snapshot_dir = "/var/lib/provost-snapshots"

  # What a snapshot must leave free where it writes, in MiB.
  # snapshot_spare_mib = 1024

  # How many images a disk may lie on.
  # snapshot_chain = 16
}

# A block for each witness: a third party that cosigns the checkpoints of the
# host log (c2sp.org/tlog-witness), so that nobody, root included, can show two
# histories. Its operator has to add the host log with its verifier key
# ("provost status" shows both). The log goes on without witnesses; that they
# are missing is sealed and shown.
# witness "w1" {
#   # Where it takes checkpoints.
#   url = "https://witness.example.net/w1"
#
#   # The verifier key of its cosignatures, as it publishes it.
#   key = "witness.example.net/w1+aeaf2fc2+BIF27VPtpqRVC0ao2eJ7UqBV4+3YdjkTI37J2c9UdC9A"
# }

# Which witnesses are needed.
witnessing {
  # A c2sp.org/tlog-policy file, the same that auditors verify with. Witnesses
  # that stand in it with an address are asked without a block of their own.
  # Default: every witness is needed. An absolute path.
  # policy = "/etc/provost/witness.policy"

  # What one witness has for its answer, from "100ms" to "1m".
  # timeout = "5s"
}

# Filter what domains send, on their tap devices, as prevent "egress" blocks of policies
# say. Without this block such policies are refused. It takes Linux 5.10 and a BPF file
# system.
# egress {
#   # Where filters are kept while no daemon runs, on a BPF file system.
#   dir = "/sys/fs/bpf/provost/egress"
#
#   # Deny frames from another address than the interface's own. Guests that bridge
#   # or run guests of their own send such frames.
#   source_mac = false
#
#   # Name servers whose answers to guests say which addresses the names in policies
#   # have. Without them policies that allow names are refused.
#   resolvers = ["10.0.0.53"]
#
#   # Where libvirt's hook asks before QEMU runs (deploy/libvirt-hook).
#   hook_socket = "/run/provost/hook.sock"
#
#   # Whether a domain may start where its taps cannot be guarded though a policy
#   # denies it something, or provostd does not answer the hook: open or closed.
#   fail = "open"
# }

# A block for each domain with a weaker mode than the host's, or whose agent owes
# something else than block guest says. It is named by its UUID ("virsh domuuid NAME" prints it), since names can be given anew.
# domain "0b0f6fc4-5cc5-4f6c-9ab1-6a3a1f7c2d10" {
#   # off, audit or enforce
#   mode = "audit"
#
#   # As in block guest, for this one: covers = [] asks for nothing.
#   silent_after = "30s"
#   boot_grace = "10m"
#   covers = ["process.exec"]
#   probe = "any"
# }

# A block for each way to tell people of alerts, beside the daemon's log, which
# gets all of them. Policies name channels in channels = [...]; an alert without
# goes to all. "provost alerts test NAME" tries one.
# alert_channel "pagers" {
#   # webhook, alertmanager, journal, syslog or command
#   type = "webhook"
#
#   # https://; http:// to this host only, unless cleartext = true
#   url = "https://alerts.example.net/provost?team=security"
#   cleartext = false
#
#   # Secret of the signatures, as of: echo whsec_$(openssl rand -base64 32)
#   secret_file = "/etc/provost/webhook.secret"
#
#   # Bearer token that is sent along.
#   token_file = "/etc/provost/webhook.token"
#
#   # Whom to believe (default: the system's CAs), and who we are. PEM files.
#   ca = "/etc/provost/receiver-ca.pem"
#   certificate = "/etc/provost/client.pem"
#   key = "/etc/provost/client.key"
#
#   # One attempt, from "100ms" to "5m"; how long an alert is tried, from "1s" to
#   # "720h"; how many alerts, of different domains, at once, 1 to 64.
#   timeout = "10s"
#   give_up = "24h"
#   concurrency = 1
# }

# alert_channel "prometheus" {
#   # url, token_file, ca, certificate, key and cleartext as above.
#   type = "alertmanager"
#   url = "http://127.0.0.1:9093"
#
#   # How long an alert fires behind the newest verdict.
#   hold = "1h"
# }

# alert_channel "journal" {
#   type = "journal"
#   socket = "/run/systemd/journal/socket"
# }

# alert_channel "siem" {
#   # ca, certificate and key as above, for tls://.
#   type = "syslog"
#
#   # unix:///dev/log, udp://HOST:514, tcp://HOST:601 or tls://HOST:6514
#   address = "tls://siem.example.net:6514"
#
#   # auth, authpriv, audit, daemon, user or local0 to local7
#   facility = "auth"
# }

# alert_channel "program" {
#   type = "command"
#
#   # A program by its path, and its arguments. There is no shell.
#   command = ["/usr/local/lib/provost/page", "--team", "security"]
#
#   # Who it runs as; default: the daemon's user.
#   user = "nobody"
# }

# A block for each group of people who may approve, ahead of time or within a policy's
# grace, what policies with an approval block of this group would report. Their SSH
# keys sign: keys in files, in agents, in hardware. It stands here and not in the
# bundle, since who writes policies must not choose who approves. A reload
# (SIGHUP) reads these blocks anew.
# approver_group "security-team" {
#   # How many different people must sign.
#   require = 1
#
#   # The longest validity of an approval, from "1m" to "366d".
#   max_duration = "24h"
#
#   # A block for each key, named by who has it. One person may have several.
#   key "alice" {
#     # As in authorized_keys, without options: ed25519, ecdsa, their sk- forms, RSA of 2048 bits or more.
#     public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsGNQUe+UFIjZlIPW0q4rOeDDwU3NSgC4PEK8ScmKCF"
#
#     # When it may sign; left out: always.
#     not_before = "2026-01-01T00:00:00Z"
#     not_after = "2036-01-01T00:00:00Z"
#   }
# }
