test "a log is deleted" {
  policy = "log_removed"

  event "file.delete" {
    file    = { path = "/var/log/auth.log" }
    process = { executable = "/usr/bin/rm" }
  }

  expect {
    matched = true
  }
}

test "rotation, packages, and other files" {
  policy = "log_removed"

  event "file.delete" {
    file    = { path = "/var/log/auth.log.4.gz" }
    process = { executable = "/usr/sbin/logrotate" }
  }

  event "file.delete" {
    file    = { path = "/var/log/syslog.1" }
    process = { executable = "/usr/bin/gzip", parent = { executable = "/usr/sbin/logrotate" } }
  }

  event "file.delete" {
    file    = { path = "/var/log/nginx/access.log" }
    process = { executable = "/usr/bin/dpkg" }
  }

  event "file.delete" {
    file    = { path = "/tmp/x.log" }
    process = { executable = "/usr/bin/rm" }
  }

  expect {
    matched = false
  }
}

test "a history is emptied" {
  policy = "history_removed"

  event "file.truncate" {
    file = { path = "/root/.bash_history" }
  }

  expect {
    matched = true
  }
}

test "another file is emptied" {
  policy = "history_removed"

  event "file.truncate" {
    file = { path = "/root/notes" }
  }

  expect {
    matched = false
  }
}

test "auditd is stopped, disabled, masked" {
  policy = "protection_stopped"

  event "process.exec" {
    process = { executable = "/usr/bin/systemctl", command_line = "systemctl stop auditd" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/systemctl", command_line = "systemctl disable --now apparmor.service" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/systemctl", command_line = "systemctl mask rsyslog" }
  }

  event "process.exec" {
    process = { executable = "/usr/sbin/setenforce", command_line = "setenforce 0" }
  }

  expect {
    verdicts = 4
  }
}

test "other services, other words, packages" {
  policy = "protection_stopped"

  event "process.exec" {
    process = { executable = "/usr/bin/systemctl", command_line = "systemctl stop nginx" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/systemctl", command_line = "systemctl status auditd" }
  }

  event "process.exec" {
    process = { executable = "/usr/sbin/setenforce", command_line = "setenforce 1" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/systemctl", command_line = "systemctl stop auditd", ancestors = [{ executable = "/usr/bin/dpkg" }] }
  }

  expect {
    matched = false
  }
}

test "a program in memory" {
  policy = "program_without_file"

  event "process.exec" {
    process = { executable = "/memfd:x", name = "kworker", in_memfd = true }
  }

  expect {
    actions = ["pause", "alert"]
  }
}

test "container runtimes, and programs with a file" {
  policy = "program_without_file"

  event "process.exec" {
    process = { name = "runc", in_memfd = true }
  }

  event "process.exec" {
    process = { name = "crun", in_memfd = true }
  }

  event "process.exec" {
    process = { name = "runc:[2:INIT]", in_memfd = true }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/ls", name = "ls" }
  }

  expect {
    matched = false
  }
}

test "the agent is killed" {
  policy = "agent_tampered"

  event "agent.tamper" {
    tamper  = { kind = "signal", refused = true }
    process = { executable = "/usr/bin/kill", pid = 9 }
  }

  expect {
    contains = ["signal by /usr/bin/kill (pid 9), refused: true"]
  }
}

test "a module from tmp" {
  policy = "foreign_kernel_module"

  event "kernel.module_load" {
    module = { name = "evil", path = "/tmp/evil.ko" }
  }

  event "kernel.module_load" {
    module = { name = "from_memory" }
  }

  expect {
    verdicts = 2
  }
}

test "modules of the distribution" {
  policy = "foreign_kernel_module"

  event "kernel.module_load" {
    module = { name = "nfs", path = "/lib/modules/6.12.0/nfs.ko" }
  }

  event "kernel.module_load" {
    module = { name = "nfs", path = "/usr/lib/modules/6.12.0/nfs.ko" }
  }

  expect {
    matched = false
  }
}

test "a file is made immutable" {
  policy = "file_made_immutable"

  event "file.attributes" {
    file = { path = "/etc/cron.d/x", attributes = ["immutable"] }
  }

  expect {
    matched = true
  }
}

test "another attribute, and the resolver's file" {
  policy = "file_made_immutable"

  event "file.attributes" {
    file = { path = "/var/lib/x", attributes = ["nodump"] }
  }

  event "file.attributes" {
    file = { path = "/etc/resolv.conf", attributes = ["immutable"] }
  }

  expect {
    matched = false
  }
}
