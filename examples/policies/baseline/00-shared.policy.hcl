# Shared lists, constants and macros. They are loaded with every file of the bundle.

bundle {
  name     = "baseline"
  version  = "2026.11.1"
  language = 1
}

# Executables as they are resolved: dnf of before version 5 is a script, and its executable
# is python's. Whoever is root can have one of these start a shell (apt-get -o
# APT::Update::Pre-Invoke::=sh update), so what they exclude goes unseen then.
list "package_managers" {
  type   = "path"
  values = ["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/apt", "/usr/bin/rpm", "/usr/bin/dnf5", "/usr/lib/snapd/snapd", "/usr/libexec/packagekitd"]
}

list "shells" {
  type = "path"
  values = [
    "/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox",
    "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/dash", "/usr/bin/zsh", "/usr/bin/ksh", "/usr/bin/busybox",
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
  temporary = ["/tmp", "/var/tmp", "/dev/shm", "/run/lock"]
}

macro "is_shell" {
  condition = contains(list.shells, process.executable)
}

macro "by_package_manager" {
  condition = contains(list.package_managers, process.executable) || intersects(process.ancestors[*].executable, list.package_managers)
}
