# Shared lists, constants and macros. They are loaded with every file of the bundle.

bundle {
  name     = "baseline"
  version  = "2026.11.1"
  language = 1
}

list "package_managers" {
  type   = "path"
  values = ["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm", "/usr/bin/dnf", "/usr/bin/snap"]
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

list "malware_paths" {
  type   = "path"
  values = ["/tmp/.X11-unix/.x", "/var/tmp/.system/kthreadd"]
}

locals {
  temporary = ["/tmp", "/var/tmp", "/dev/shm"]
}

macro "is_shell" {
  condition = contains(list.shells, process.executable)
}

macro "by_package_manager" {
  condition = contains(list.package_managers, process.executable) || intersects(process.ancestors[*].executable, list.package_managers)
}
