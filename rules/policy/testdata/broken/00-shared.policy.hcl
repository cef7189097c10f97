bundle {
  name     = "broken"
  version  = 3
  langauge = 1
}

list "shells" {
  type   = "path"
  values = ["/bin/sh", "bin/bash", "/usr//bin/zsh"]
}

list "digests" {
  type = "sha256"
  file = "lists/digests.sha256"
}

list "outside" {
  type = "string"
  file = "../../secret"
}

list "nets" {
  type   = "cdir"
  values = ["192.0.2.0/24"]
}

list "hostbits" {
  type   = "cidr"
  values = ["192.0.2.7/24", "2001:db8::/129", "10.0.0.0/8"]
}

locals {
  a = local.b
  b = local.a
  c = process.pid
}

macro "loop" {
  condition = macro.pool
}

macro "pool" {
  condition = macro.loop || has(file.path)
}

macro "forgotten" {
  condition = file.pth == "/etc/passwd"
}
