# Detections for Linux guests that need nothing but alerts and a pause, so that every
# host can load them. All are in audit: read what they find before you enforce one.

bundle {
  name     = "detection"
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

macro "by_package_manager" {
  condition = contains(list.package_managers, process.executable) || intersects(process.ancestors[*].executable, list.package_managers)
}

macro "in_container" {
  condition = has(process.container_id)
}
