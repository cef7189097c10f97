test "hashes are read" {
  policy = "password_file_named"

  event "process.exec" {
    process = { executable = "/usr/bin/cat", command_line = "cat /etc/shadow" }
    user    = { id = 0 }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/cp", command_line = "cp /etc/gshadow /tmp/" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/unshadow", command_line = "unshadow /etc/passwd /etc/shadow-" }
  }

  expect {
    verdicts = 3
  }
}

test "tools for accounts, and other files" {
  policy = "password_file_named"

  event "process.exec" {
    process = { executable = "/usr/sbin/pwck", command_line = "pwck -r /etc/passwd /etc/shadow" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/cat", command_line = "cat /etc/hosts" }
  }

  expect {
    matched = false
  }
}

test "sshd is traced" {
  policy = "secrets_traced"

  event "process.trace" {
    process = { executable = "/usr/bin/strace", name = "strace", pid = 40, object = { name = "sshd", pid = 22 } }
  }

  expect {
    contains = ["/usr/bin/strace (pid 40) traces sshd (pid 22)"]
  }
}

test "a crash, and another process" {
  policy = "secrets_traced"

  event "process.trace" {
    process = { name = "systemd-coredump", object = { name = "sshd" } }
  }

  event "process.trace" {
    process = { name = "gdb", object = { name = "a.out" } }
  }

  expect {
    matched = false
  }
}

test "curl asks for the role" {
  policy = "metadata_service_asked"

  event "network.connect" {
    process     = { executable = "/usr/bin/curl" }
    destination = { ip = "169.254.169.254", port = 80 }
    user        = { id = 33 }
  }

  expect {
    matched = true
  }
}

test "the cloud's own agent, and another address" {
  policy = "metadata_service_asked"

  event "network.connect" {
    process     = { executable = "/usr/bin/google_guest_agent" }
    destination = { ip = "169.254.169.254", port = 80 }
  }

  event "network.connect" {
    process     = { executable = "/usr/bin/python3.11", script = "/usr/bin/cloud-init" }
    destination = { ip = "169.254.169.254", port = 80 }
  }

  event "network.connect" {
    process     = { executable = "/usr/bin/curl" }
    destination = { ip = "192.0.2.1", port = 80 }
  }

  expect {
    matched = false
  }
}
