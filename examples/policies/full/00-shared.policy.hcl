# The whole language: policies that prevent, snapshot, isolate, escalate and ask for
# approvals. A host that cannot do one of these refuses the bundle, and says which.

bundle {
  name     = "full"
  version  = "2026.11.1"
  language = 1
}

list "shells" {
  type = "path"
  values = [
    "/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox",
    "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/dash", "/usr/bin/zsh", "/usr/bin/busybox",
  ]
}

# One digest on each line, as sha256sum writes them.
list "malware_sha256" {
  type = "sha256"
  file = "lists/malware.sha256"
}

list "malware_names" {
  type   = "string"
  values = ["xmrig", "kinsing", "kdevtmpfsi", "tsunami", "mirai"]
}

list "allowed_egress" {
  type   = "cidr"
  values = ["198.51.100.0/24", "203.0.113.10/32", "2001:db8:10::/48"]
}

locals {
  web_vms = ["web-*", "edge-*"]
}

macro "is_shell" {
  condition = contains(list.shells, process.executable)
}
