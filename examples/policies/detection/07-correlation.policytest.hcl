vm "stopped" {
  state = "shutoff"
}

test "files get a new ending" {
  policy = "many_files_renamed"

  event "file.rename" {
    repeat  = 99
    every   = "100ms"
    file    = { path = "/srv/data/${each.index}.doc", target_path = "/srv/data/${each.index}.doc.locked" }
    process = { executable = "/usr/bin/python3", pid = 80, start = 5 }

    expect {
      matched = false
    }
  }

  event "file.rename" {
    file    = { path = "/srv/data/last.doc", target_path = "/srv/data/last.doc.locked" }
    process = { executable = "/usr/bin/python3", pid = 80, start = 5 }

    expect {
      actions  = ["pause", "alert"]
      contains = ["renamed 100 files", "last to /srv/data/last.doc.locked"]
    }
  }

  event "file.rename" {
    repeat  = 300
    every   = "100ms"
    file    = { path = "/home/${each.index}", target_path = "/home/${each.index}.locked" }
    process = { executable = "/usr/bin/python3", pid = 80, start = 5 }

    expect {
      matched    = false
      suppressed = 3
    }
  }
}

test "slow, by many, or one file over and over" {
  policy = "many_files_renamed"

  event "file.rename" {
    repeat  = 150
    every   = "1s"
    file    = { path = "/srv/${each.index}", target_path = "/srv/${each.index}.bak" }
    process = { pid = 80, start = 5 }
  }

  event "file.rename" {
    at      = "+10m"
    repeat  = 150
    file    = { path = "/srv/${each.index}", target_path = "/srv/${each.index}.bak" }
    process = { pid = 1000 + each.index, start = 5 }
  }

  event "file.rename" {
    at      = "+20m"
    repeat  = 150
    file    = { path = "/srv/state", target_path = "/srv/state.old" }
    process = { pid = 80, start = 5 }
  }

  expect {
    matched = false
  }
}

test "packages, caches, and moves" {
  policy = "many_files_renamed"

  event "file.rename" {
    repeat  = 150
    file    = { path = "/usr/lib/${each.index}", target_path = "/usr/lib/${each.index}.dpkg-new" }
    process = { executable = "/usr/bin/dpkg" }
  }

  event "file.rename" {
    repeat = 150
    file   = { path = "/var/cache/${each.index}", target_path = "/var/cache/${each.index}.new" }
  }

  event "file.rename" {
    repeat = 150
    file   = { path = "/srv/${each.index}.tmp", target_path = "/srv/${each.index}" }
  }

  expect {
    matched = false
  }
}

test "a scan" {
  policy = "internal_port_scan"

  event "network.connect" {
    repeat      = 120
    every       = "100ms"
    process     = { executable = "/usr/bin/nmap", name = "nmap", pid = 7, start = 1 }
    destination = { ip = "10.0.0.${each.index}", port = 22 }
  }

  expect {
    verdicts   = 1
    suppressed = 1
    contains   = ["/usr/bin/nmap contacted 50 hosts in 1m"]
  }
}

test "monitoring, the outside, and one host" {
  policy = "internal_port_scan"

  event "network.connect" {
    repeat      = 60
    process     = { name = "prometheus", pid = 7, start = 1 }
    destination = { ip = "10.0.0.${each.index}", port = 9100 }
  }

  event "network.connect" {
    repeat      = 60
    process     = { name = "firefox", pid = 8, start = 1 }
    destination = { ip = "192.0.2.${each.index}", port = 443 }
  }

  event "network.connect" {
    repeat      = 60
    process     = { name = "psql", pid = 9, start = 1 }
    destination = { ip = "10.0.0.1", port = 5432 }
  }

  expect {
    matched = false
  }
}

test "curl, then run" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/tmp/x" }
    process = { name = "curl" }

    expect {
      matched = false
      step    = "download"
    }
  }

  event "process.exec" {
    at      = "+20s"
    process = { executable = "/tmp/x", parent = { executable = "/usr/bin/bash" } }
  }

  expect {
    message = "test-vm: curl wrote /tmp/x, and /usr/bin/bash started it"
  }
}

test "a script is run by its interpreter" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/dev/shm/a.py" }
    process = { name = "wget" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/python3", script = "/dev/shm/a.py" }
  }

  expect {
    matched = true
  }
}

test "another file, another place, too late, or deleted before" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/tmp/x" }
    process = { name = "curl" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/ls" }
  }

  event "process.exec" {
    at      = "+11m"
    process = { executable = "/tmp/x" }
  }

  event "file.create" {
    file    = { path = "/home/bob/x" }
    process = { name = "curl" }
  }

  event "process.exec" {
    process = { executable = "/home/bob/x" }
  }

  event "file.create" {
    file    = { path = "/tmp/log" }
    process = { name = "rsyslogd" }
  }

  event "file.create" {
    at      = "+20m"
    file    = { path = "/tmp/y" }
    process = { name = "wget" }
  }

  event "file.delete" {
    file = { path = "/tmp/z" }
  }

  event "file.delete" {
    file = { path = "/tmp/y" }
  }

  event "process.exec" {
    process = { executable = "/tmp/y" }
  }

  expect {
    matched = false
  }
}

test "guessing ends" {
  policy = "login_guessed"

  event "auth.login" {
    repeat  = 12
    every   = "2s"
    event   = { outcome = "failure" }
    process = { name = "sshd" }
    user    = { name = "root" }
    source  = { ip = "192.0.2.7" }

    expect {
      matched = false
      step    = "failures"
    }
  }

  event "auth.login" {
    event   = { outcome = "success" }
    process = { name = "sshd" }
    user    = { name = "root" }
    source  = { ip = "192.0.2.7" }
  }

  expect {
    contains = ["login of root from 192.0.2.7 after "]
  }
}

test "few failures, another address, and another program" {
  policy = "login_guessed"

  event "auth.login" {
    repeat  = 9
    event   = { outcome = "failure" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.7" }
  }

  event "auth.login" {
    event   = { outcome = "success" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.7" }
  }

  event "auth.login" {
    repeat  = 20
    event   = { outcome = "failure" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.8" }
  }

  event "auth.login" {
    event   = { outcome = "success" }
    process = { name = "sshd" }
    source  = { ip = "192.0.2.9" }
  }

  event "auth.login" {
    event   = { outcome = "success" }
    process = { name = "login" }
    source  = { ip = "192.0.2.8" }
  }

  expect {
    matched = false
  }
}

test "a new listener after the first day" {
  policy = "new_listener"

  event "network.listen" {
    process = { executable = "/usr/sbin/nginx" }
    source  = { ip = "0.0.0.0", port = 443 }
    network = { transport = "tcp" }
  }

  event "network.listen" {
    at      = "+2d"
    process = { executable = "/usr/sbin/nginx" }
    source  = { ip = "0.0.0.0", port = 443 }
    network = { transport = "tcp" }

    expect {
      matched = false
    }
  }

  event "network.listen" {
    process = { executable = "/tmp/nc" }
    source  = { ip = "0.0.0.0", port = 4444 }
    network = { transport = "tcp" }
  }

  expect {
    message  = "test-vm: /tmp/nc, uid (unknown), listens at 0.0.0.0:4444"
    verdicts = 1
  }
}

test "loopback, and datagrams" {
  policy = "new_listener"

  event "network.listen" {
    process = { executable = "/usr/sbin/sshd" }
    source  = { ip = "0.0.0.0", port = 22 }
    network = { transport = "tcp" }
  }

  event "network.listen" {
    at      = "+2d"
    process = { executable = "/usr/bin/dev" }
    source  = { ip = "127.0.0.1", port = 8080 }
    network = { transport = "tcp" }
  }

  event "network.listen" {
    process = { executable = "/usr/sbin/chronyd" }
    source  = { ip = "0.0.0.0", port = 123 }
    network = { transport = "udp" }
  }

  expect {
    matched = false
  }
}

test "the agent is attacked and falls silent" {
  policy = "agent_silenced_by_force"

  event "agent.tamper" {
    tamper  = { kind = "signal" }
    process = { executable = "/usr/bin/kill" }
  }

  event "agent.heartbeat_lost" {
    at    = "+40s"
    agent = { silent_seconds = 30 }
  }

  expect {
    message = "test-vm: silent after signal by /usr/bin/kill"
  }
}

test "it was told to stop, or the domain is off" {
  policy = "agent_silenced_by_force"
  vm     = "stopped"

  event "agent.tamper" {
    tamper = { kind = "signal" }
  }

  event "agent.heartbeat_lost" {
    at = "+40s"
  }

  event "agent.stopped" {
    agent = { authorised = true }
  }

  event "agent.heartbeat_lost" {
    at = "+80s"
  }

  expect {
    matched = false
  }
}

test "another file that is deleted undoes nothing" {
  policy = "download_then_execute"

  event "file.create" {
    file    = { path = "/tmp/x" }
    process = { name = "curl" }
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

test "failures of another program count for nothing" {
  policy = "login_guessed"

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
