vm "web" {
  name     = "web-1"
  uuid     = "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11"
  metadata = { zone = "restricted" }
}

vm "free" {
  name     = "db-1"
  metadata = { zone = "office" }
  state    = "shutoff"
}

test "xmrig by name" {
  policy = "known_malicious_process"
  vm     = "web"

  event "process.exec" {
    process = { executable = "/tmp/XMRig", name = "XMRig" }
  }

  expect {
    matched = true
    actions = ["snapshot", "quarantine", "alert"]
  }
}

test "by digest" {
  policy = "known_malicious_process"

  event "process.exec" {
    process = { name = "x", hash = { sha256 = list.malware_sha256[0] } }
  }

  expect {
    matched = true
  }
}

test "another program" {
  policy = "known_malicious_process"

  event "process.exec" {
    process = { executable = "/usr/bin/ls", name = "ls" }
  }

  expect {
    matched = false
  }
}

test "external address not allowed" {
  policy = "egress_allowlist"
  vm     = "web"

  event "network.connect" {
    destination = { ip = "192.0.2.7", port = 443 }
    process     = { executable = "/usr/bin/curl", name = "curl" }
  }

  expect {
    actions = ["alert"]
    message = "web-1 tried 192.0.2.7:443, which is not allowed"
  }
}

test "allowed and internal addresses, and a VM that is free" {
  policy = "egress_allowlist"
  vm     = "web"

  event "network.connect" {
    destination = { ip = "198.51.100.20", port = 443 }
  }

  event "network.connect" {
    destination = { ip = "10.0.0.20", port = 443 }
  }

  expect {
    matched = false
  }
}

test "a VM that is free" {
  policy = "egress_allowlist"
  vm     = "free"

  event "network.connect" {
    destination = { ip = "192.0.2.7", port = 443 }
  }

  expect {
    matched = false
  }
}

test "five addresses in a minute cut the network" {
  policy = "egress_allowlist"
  vm     = "web"

  event "network.drop" {
    repeat      = 4
    every       = "2s"
    destination = { ip = "192.0.2.${each.index}", port = 443 }

    expect {
      actions = ["alert", "alert", "alert", "alert"]
    }
  }

  event "network.drop" {
    destination = { ip = "192.0.2.99", port = 443 }

    expect {
      actions = ["alert", "detach_network"]
    }
  }
}

test "a reverse shell" {
  policy = "reverse_shell"

  event "network.connect" {
    process     = { executable = "/usr/bin/bash", pid = 4 }
    destination = { ip = "192.0.2.7", port = 4444 }
    network     = { direction = "egress" }
  }

  expect {
    actions = ["pause", "snapshot", "alert"]
    message = "/usr/bin/bash (pid 4) opened 192.0.2.7:4444"
  }
}

test "no reverse shell" {
  policy = "reverse_shell"

  event "network.connect" {
    process     = { executable = "/usr/bin/bash" }
    destination = { ip = "10.0.0.7", port = 4444 }
    network     = { direction = "egress" }
  }

  event "network.connect" {
    process     = { executable = "/usr/bin/curl" }
    destination = { ip = "192.0.2.7", port = 443 }
    network     = { direction = "ingress" }
  }

  expect {
    matched = false
  }
}

test "downloaded, made executable, started" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/tmp/x" }
    process = { name = "curl" }

    expect {
      step = "download"
    }
  }

  event "file.chmod" {
    at   = "+5s"
    file = { path = "/tmp/x", mode_executable = true }

    expect {
      step = "chmod"
    }
  }

  event "process.exec" {
    at      = "+8s"
    process = { executable = "/tmp/x", parent = { executable = "/usr/bin/bash" } }
  }

  expect {
    actions = ["snapshot", "alert"]
    message = "curl wrote /tmp/x, then it was executed by /usr/bin/bash"
  }
}

test "steps that are missing, of another file, or undone" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/tmp/x" }
    process = { name = "curl" }
  }

  event "file.create" {
    file    = { path = "/home/x" }
    process = { name = "vim" }
  }

  event "file.chmod" {
    file = { path = "/tmp/y", mode_executable = true }
  }

  event "file.chmod" {
    file = { path = "/tmp/x", mode = 384 }
  }

  event "process.exec" {
    process = { executable = "/tmp/x" }
  }

  event "file.chmod" {
    file = { path = "/tmp/x", mode_executable = true }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/ls" }
  }

  event "file.delete" {
    file = { path = "/tmp/other" }
  }

  event "file.delete" {
    file = { path = "/tmp/x" }
  }

  event "process.exec" {
    process = { executable = "/tmp/x" }
  }

  expect {
    matched = false
    step    = "chmod"
  }
}

test "a scan" {
  policy = "internal_port_scan"

  event "network.connect" {
    repeat      = 50
    every       = "1s"
    process     = { executable = "/usr/bin/nmap", name = "nmap", pid = 7, start = 1 }
    destination = { ip = "10.0.0.${each.index}", port = 22 }
  }

  expect {
    message = "/usr/bin/nmap contacted 50 hosts in 1m"
  }
}

test "no scan" {
  policy = "internal_port_scan"

  event "network.connect" {
    repeat      = 60
    every       = "2s"
    process     = { name = "slow", pid = 7, start = 1 }
    destination = { ip = "10.0.0.${each.index}", port = 22 }
  }

  event "network.connect" {
    repeat      = 60
    process     = { name = "prometheus", pid = 8, start = 1 }
    destination = { ip = "10.0.0.${each.index}", port = 9100 }
  }

  event "network.connect" {
    repeat      = 60
    process     = { name = "firefox", pid = 9, start = 1 }
    destination = { ip = "192.0.2.${each.index}", port = 443 }
  }

  expect {
    matched = false
  }
}

test "php-fpm child shell" {
  policy = "webserver_spawned_shell"
  vm     = "web"

  event "process.exec" {
    process = {
      executable   = "/bin/sh"
      name         = "sh"
      command_line = "sh -c id"
      ancestors    = [{ name = "php-fpm", executable = "/usr/sbin/php-fpm" }, { name = "systemd", executable = "/usr/lib/systemd/systemd" }]
    }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/python3", name = "python3", ancestors = [{ name = "nginx" }] }
  }

  expect {
    actions  = ["snapshot", "alert", "snapshot", "alert"]
    contains = ["sh -c id below php-fpm"]
  }
}

test "rotation is an exception until it ends" {
  policy = "webserver_spawned_shell"
  vm     = "web"
  start  = "2027-03-31T23:59:00Z"

  event "process.exec" {
    process = { executable = "/bin/sh", command_line = "/bin/sh -c [ -x /usr/sbin/invoke-rc.d ] && true", ancestors = [{ name = "nginx" }] }

    expect {
      matched   = false
      exception = "log rotation"
    }
  }

  event "process.exec" {
    at      = "+2m"
    process = { executable = "/bin/sh", command_line = "/bin/sh -c [ -x /usr/sbin/invoke-rc.d ] && true", ancestors = [{ name = "nginx" }] }

    expect {
      matched = true
    }
  }
}

test "other programs, other parents" {
  policy = "webserver_spawned_shell"
  vm     = "web"

  event "process.exec" {
    process = { executable = "/usr/sbin/nginx", name = "nginx", ancestors = [{ name = "nginx" }] }
  }

  event "process.exec" {
    process = { executable = "/bin/sh", name = "sh", ancestors = [{ name = "sshd" }] }
  }

  expect {
    matched = false
  }
}

test "a VM that serves no web" {
  policy = "webserver_spawned_shell"
  vm     = "free"

  event "process.exec" {
    process = { executable = "/bin/sh", ancestors = [{ name = "nginx" }] }
  }

  expect {
    matched = false
  }
}

test "memory that can be written and run, once" {
  policy = "anonymous_executable_memory"

  event "memory.protect" {
    repeat  = 3
    every   = "1h"
    process = { executable = "/usr/sbin/sshd", name = "sshd" }
    memory  = { anonymous = true, readable = true, writable = true, executable = true, size = 4096 }
  }

  expect {
    verdicts = 1
    message  = "/usr/sbin/sshd mapped 4096 bytes rwx"
  }
}

test "compilers, and memory of other kinds" {
  policy = "anonymous_executable_memory"

  event "memory.map" {
    process = { name = "java" }
    memory  = { anonymous = true, writable = true, executable = true }
  }

  event "memory.map" {
    process = { name = "sshd" }
    memory  = { anonymous = false, writable = false, executable = false }
  }

  expect {
    matched = false
  }
}

test "silence" {
  policy = "agent_silenced"
  vm     = "web"

  event "agent.heartbeat_lost" {
    event = { reason = "no frame for 30 s" }
  }

  expect {
    message = "no verified events from web-1: no frame for 30 s"
  }
}

test "a domain that is off" {
  policy = "agent_silenced"
  vm     = "free"

  event "agent.heartbeat_lost" {}

  expect {
    matched = false
  }
}

test "an entry that is not the host's" {
  policy = "agent_silenced"
  vm     = "web"

  event "agent.heartbeat_lost" {
    event = { origin = "operator" }
  }

  expect {
    matched = false
  }
}

test "guessing ends" {
  policy = "ssh_bruteforce_success"

  event "auth.login" {
    repeat  = 11
    every   = "10s"
    event   = { outcome = "failure" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.7" }
  }

  event "auth.login" {
    event   = { outcome = "success" }
    process = { name = "sshd" }
    user    = { name = "root" }
    source  = { ip = "192.0.2.7" }
  }

  expect {
    message = "login of root from 192.0.2.7 after 11 failures"
  }
}

test "another address, another program" {
  policy = "ssh_bruteforce_success"

  event "auth.login" {
    repeat  = 10
    event   = { outcome = "failure" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.7" }
  }

  event "auth.login" {
    event   = { outcome = "success" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.8" }
  }

  event "auth.login" {
    event   = { outcome = "success" }
    process = { name = "login" }
    source  = { ip = "192.0.2.7" }
  }

  expect {
    matched = false
  }
}

test "vim on passwd raises an alert" {
  policy = "etc_modified_without_approval"
  vm     = "web"

  event "file.modify" {
    file    = { path = "/etc/passwd" }
    process = { executable = "/usr/bin/vim", name = "vim" }
    user    = { id = 1000 }
  }

  expect {
    matched = true
    actions = ["alert"]
    message = "/etc/passwd changed by /usr/bin/vim (uid 1000) on web-1 without approval"
  }
}

test "a signed approval covers it" {
  policy = "etc_modified_without_approval"
  vm     = "web"

  approval "CHG-4711" {
    group     = "security-team"
    condition = under(file.path, "/etc/nginx")
    until     = "1h"
    max_uses  = 2
  }

  event "file.modify" {
    repeat  = 2
    file    = { path = "/etc/nginx/nginx.conf" }
    process = { executable = "/usr/bin/vim", name = "vim" }

    expect {
      matched  = false
      approved = "CHG-4711"
    }
  }

  event "file.modify" {
    file = { path = "/etc/hosts" }

    expect {
      matched = true
    }
  }

  event "file.modify" {
    file = { path = "/etc/nginx/used-up.conf" }

    expect {
      matched = true
    }
  }
}

test "approvals of others, and ones that have ended, cover nothing" {
  policy = "etc_modified_without_approval"

  approval "CHG-1" {
    group = "platform-team"
    until = "1h"
  }

  approval "CHG-2" {
    group = "security-team"
    until = "10m"
  }

  event "file.modify" {
    at   = "+11m"
    file = { path = "/etc/passwd" }
  }

  expect {
    matched = true
  }
}

test "an approval within ten minutes closes the alert" {
  policy = "etc_modified_without_approval"

  approval "CHG-3" {
    group = "security-team"
    at    = "+5m"
    until = "+1h"
  }

  event "file.rename" {
    file = { path = "/tmp/x", target_path = "/etc/cron.d/x" }

    expect {
      matched = true
    }
  }

  event "file.modify" {
    at   = "+6m"
    file = { path = "/tmp/other" }
  }

  expect {
    verdicts = 1
    approved = "CHG-3"
  }
}

test "/etcetera is not /etc" {
  policy = "etc_modified_without_approval"

  event "file.modify" {
    file = { path = "/etcetera/x" }
  }

  expect {
    matched = false
  }
}

test "the resolver writes its state" {
  policy = "etc_modified_without_approval"

  event "file.modify" {
    file    = { path = "/etc/resolv.conf" }
    process = { executable = "/usr/lib/systemd/systemd-resolved" }

    expect {
      exception = "resolver state"
    }
  }

  event "file.modify" {
    file    = { path = "/etc/resolv.conf" }
    process = { executable = "/usr/bin/vim" }

    expect {
      matched = true
    }
  }
}

test "a module from elsewhere, or without a signature" {
  policy = "kernel_module_outside_update"

  event "kernel.module_load" {
    module = { name = "evil", path = "/tmp/evil.ko", signed = false }
  }

  event "kernel.module_load" {
    module = { name = "evil", path = "/tmp/evil.ko", signed = true }
  }

  expect {
    verdicts = 2
    contains = ["module evil from /tmp/evil.ko (signed: false)"]
  }
}

test "modules of the distribution" {
  policy = "kernel_module_outside_update"

  event "kernel.module_load" {
    module = { name = "nfs", path = "/lib/modules/6.12.0/nfs.ko", signed = true }
  }

  event "kernel.module_load" {
    module = { name = "nfs", path = "/usr/lib/modules/6.12.0/nfs.ko", signed = true }
  }

  expect {
    matched = false
  }
}

test "two of the platform team approve" {
  policy = "kernel_module_outside_update"

  approval "CHG-9" {
    group = "platform-team"
    until = "1h"
  }

  event "kernel.module_load" {
    module = { name = "zfs", path = "/usr/local/zfs.ko" }
  }

  expect {
    matched  = false
    approved = "CHG-9"
  }
}

test "one is not enough" {
  policy = "kernel_module_outside_update"

  approval "CHG-9" {
    group   = "platform-team"
    until   = "1h"
    signers = 1
  }

  event "kernel.module_load" {
    module = { name = "zfs", path = "/usr/local/zfs.ko" }
  }

  expect {
    actions = ["pause", "snapshot", "alert"]
  }
}

test "another file that is deleted undoes nothing" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/tmp/x" }
    process = { name = "curl" }
  }

  event "file.chmod" {
    file = { path = "/tmp/x", mode_executable = true }
  }

  event "file.delete" {
    file = { path = "/tmp/other" }
  }

  event "process.exec" {
    process = { executable = "/tmp/x" }
  }

  expect {
    matched = true
  }
}

test "curl elsewhere, and others in temporary directories" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/home/bob/x" }
    process = { name = "curl" }
  }

  event "file.chmod" {
    file = { path = "/home/bob/x", mode_executable = true }
  }

  event "process.exec" {
    process = { executable = "/home/bob/x" }
  }

  event "file.create" {
    file    = { path = "/tmp/cc1" }
    process = { name = "ld" }
  }

  event "file.chmod" {
    file = { path = "/tmp/cc1", mode_executable = true }
  }

  event "process.exec" {
    process = { executable = "/tmp/cc1" }
  }

  expect {
    matched = false
  }
}

test "failures of another program count for nothing" {
  policy = "ssh_bruteforce_success"

  event "auth.login" {
    repeat  = 20
    event   = { outcome = "failure" }
    process = { name = "login" }
    source  = { ip = "192.0.2.7" }
  }

  event "auth.login" {
    repeat  = 2
    event   = { outcome = "success" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.7" }
  }

  expect {
    matched = false
  }
}

test "a disk on a Sunday, and in the night" {
  policy = "device_attached_out_of_hours"
  vm     = "web"
  start  = "2026-11-22T12:00:00Z"

  event "vm.device_attach" {
    libvirt = { detail = "virtio-disk7" }
  }

  event "vm.define" {
    at = "+17h"
  }

  expect {
    verdicts = 2
    message  = "device_attach on web-1: virtio-disk7"
  }
}

test "a disk at work" {
  policy = "device_attached_out_of_hours"

  event "vm.device_attach" {
    libvirt = { detail = "virtio-disk7" }
  }

  expect {
    matched = false
  }
}

test "a disk that was planned for Sunday" {
  policy = "device_attached_out_of_hours"
  start  = "2026-11-22T12:00:00Z"

  approval "CHG-12" {
    group = "virtualisation-team"
    until = "1h"
  }

  event "vm.device_attach" {
    libvirt = { detail = "virtio-disk7" }
  }

  expect {
    matched  = false
    approved = "CHG-12"
  }
}

test "an entry that no host wrote, on a Sunday" {
  policy = "device_attached_out_of_hours"
  start  = "2026-11-22T12:00:00Z"

  event "vm.define" {
    event = { origin = "operator" }
  }

  expect {
    matched = false
  }
}
