# Tests of the baseline: "provost policy test --coverage" over this directory sees
# every part of every condition true and false.

vm "web" {
  name = "web-1"
  uuid = "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11"
}

vm "stopped" {
  name  = "web-2"
  state = "shutoff"
}

test "vim on passwd" {
  policy = "etc_changed"
  vm     = "web"

  event "file.modify" {
    file    = { path = "/etc/passwd" }
    process = { executable = "/usr/bin/vim", name = "vim", pid = 700 }
    user    = { id = 1000 }
  }

  expect {
    matched = true
    actions = ["alert"]
    message = "web-1: file.modify /etc/passwd (new path (unknown)) by /usr/bin/vim, pid 700, uid 1000"
  }
}

test "a prepared file is moved over shadow" {
  policy = "etc_changed"

  event "file.rename" {
    file    = { path = "/tmp/x", target_path = "/etc/shadow", replaced = true }
    process = { executable = "/usr/bin/mv" }
  }

  expect {
    matched  = true
    contains = ["new path /etc/shadow"]
  }
}

test "etcetera is not etc" {
  policy = "etc_changed"

  event "file.modify" {
    file    = { path = "/etcetera/x" }
    process = { executable = "/usr/bin/vim" }
  }

  expect {
    matched = false
  }
}

test "a package manager may" {
  policy = "etc_changed"

  event "file.create" {
    file    = { path = "/etc/cron.d/anacron" }
    process = { executable = "/usr/bin/dpkg" }
  }

  expect {
    matched = false
  }
}

test "so may a script that it runs" {
  policy = "etc_changed"

  event "file.create" {
    file = { path = "/etc/cron.d/anacron" }
    process = {
      executable = "/usr/bin/dash"
      ancestors  = [{ name = "dpkg", executable = "/usr/bin/dpkg" }, { name = "apt-get", executable = "/usr/bin/apt-get" }]
    }
  }

  expect {
    matched = false
  }
}

test "a loop over one file alerts every ten seconds" {
  policy = "etc_changed"

  event "file.modify" {
    repeat  = 25
    every   = "1s"
    file    = { path = "/etc/hosts" }
    process = { executable = "/usr/bin/python3", pid = 9, start = 5 }
  }

  expect {
    verdicts   = 3
    suppressed = 22
  }
}

test "xmrig by name" {
  policy = "known_malicious_process"
  vm     = "web"

  event "process.exec" {
    process = { executable = "/tmp/XMRig", name = "XMRig", command_line = "XMRig -o pool" }
  }

  expect {
    actions  = ["pause", "alert"]
    contains = ["web-1 paused: /tmp/XMRig (XMRig -o pool)"]
  }
}

test "by digest" {
  policy = "known_malicious_process"

  event "process.exec" {
    process = { executable = "/usr/bin/innocent", hash = { sha256 = list.malware_sha256[0] } }
  }

  expect {
    matched = true
  }
}

test "by path" {
  policy = "known_malicious_process"

  event "process.exec" {
    process = { executable = "/tmp/.X11-unix/.x" }
  }

  expect {
    matched = true
  }
}

test "by the file that was asked for" {
  policy = "known_malicious_process"

  event "process.exec" {
    process = { executable = "/usr/bin/ld.so", filename = "./kinsing", name = "renamed" }
  }

  expect {
    matched = true
  }
}

test "a name alone, and the name of a file alone" {
  policy = "known_malicious_process"

  event "process.exec" {
    process = { executable = "/usr/bin/perl", filename = "/usr/bin/perl", name = "Kinsing" }
  }

  event "process.exec" {
    process = { executable = "/tmp/mirai", filename = "/proc/self/fd/3", name = "3" }
  }

  expect {
    verdicts = 2
  }
}

test "nginx is none of them" {
  policy = "known_malicious_process"

  event "process.exec" {
    process = { executable = "/usr/sbin/nginx", filename = "/usr/sbin/nginx", name = "nginx", hash = { sha256 = "0000000000000000000000000000000000000000000000000000000000000000" } }
  }

  expect {
    matched = false
  }
}

test "bash to an address outside" {
  policy = "reverse_shell"

  event "network.connect" {
    process     = { executable = "/usr/bin/bash", pid = 4 }
    destination = { ip = "192.0.2.7", port = 4444 }
  }

  expect {
    actions  = ["pause", "alert"]
    contains = ["connected to 192.0.2.7:4444"]
  }
}

test "bash inside, and for a name" {
  policy = "reverse_shell"

  event "network.connect" {
    process     = { executable = "/usr/bin/bash" }
    destination = { ip = "10.0.0.7", port = 4444 }
  }

  event "network.connect" {
    process     = { executable = "/usr/bin/bash" }
    destination = { ip = "192.0.2.53", port = 53 }
  }

  event "network.connect" {
    process     = { executable = "/usr/bin/curl" }
    destination = { ip = "192.0.2.7", port = 443 }
  }

  expect {
    matched = false
  }
}

test "the agent is silent" {
  policy = "agent_silenced"
  vm     = "web"

  event "agent.heartbeat_lost" {
    event = { reason = "no frame" }
    agent = { silent_seconds = 31 }
  }

  expect {
    message = "web-1: agent.heartbeat_lost (no frame), silent for 31 s"
  }
}

test "a domain that is off has no agent" {
  policy = "agent_silenced"
  vm     = "stopped"

  event "agent.heartbeat_lost" {}

  expect {
    matched = false
  }
}

test "only the host finds an agent silent" {
  policy = "agent_silenced"

  event "agent.sequence_gap" {
    event = { origin = "operator" }
  }

  expect {
    matched = false
  }
}

test "the ring was full" {
  policy = "observations_lost"

  event "agent.dropped" {
    lost = { count = 12, author = "guest", reasons = ["ring_full"] }
  }

  expect {
    contains = ["12 observations lost, says the guest: ring_full"]
  }
}

test "a report of nothing" {
  policy = "observations_lost"

  event "agent.dropped" {
    lost = { count = 0 }
  }

  expect {
    matched = false
  }
}

test "a disk is attached" {
  policy = "definition_changed"

  event "vm.device_attach" {
    libvirt = { detail = "vdb" }
  }

  expect {
    contains = ["device_attach, vdb"]
  }
}

test "an entry that is not the host's" {
  policy = "definition_changed"

  event "vm.define" {
    event = { origin = "operator" }
  }

  expect {
    matched = false
  }
}

test "a program in tmp" {
  policy = "executed_from_temporary_directory"

  event "process.exec" {
    process = { executable = "/dev/shm/x" }
  }

  expect {
    matched = true
  }
}

test "a script in a temporary directory, by its path and as ./x" {
  policy = "executed_from_temporary_directory"

  event "process.exec" {
    process = { executable = "/usr/bin/dash", script = "/tmp/x.sh", working_directory = "/root" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/dash", script = "./x.sh", working_directory = "/var/tmp/a" }
  }

  expect {
    verdicts = 2
  }
}

test "scripts elsewhere, started from a temporary directory" {
  policy = "executed_from_temporary_directory"

  event "process.exec" {
    process = { executable = "/usr/bin/dash", script = "/usr/bin/ldd", working_directory = "/tmp" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/dash", script = "./configure", working_directory = "/srv/build" }
  }

  expect {
    matched = false
  }
}

test "programs elsewhere, and of an installation" {
  policy = "executed_from_temporary_directory"

  event "process.exec" {
    process = { executable = "/usr/bin/ls" }
  }

  event "process.exec" {
    process = { executable = "/tmp/dpkg.config", ancestors = [{ executable = "/usr/bin/dpkg" }] }
  }

  expect {
    matched = false
  }
}
