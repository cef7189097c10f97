test "a job is dropped" {
  policy = "job_changed"

  event "file.create" {
    file    = { path = "/etc/cron.d/update" }
    process = { executable = "/usr/bin/bash" }
  }

  expect {
    matched = true
  }
}

test "a job is moved into place" {
  policy = "job_changed"

  event "file.rename" {
    file    = { path = "/tmp/x", target_path = "/var/spool/cron/root" }
    process = { executable = "/usr/bin/mv" }
  }

  expect {
    matched  = true
    contains = ["new path /var/spool/cron/root"]
  }
}

test "no job, and one of a package" {
  policy = "job_changed"

  event "file.modify" {
    file    = { path = "/etc/hosts" }
    process = { executable = "/usr/bin/vim" }
  }

  event "file.create" {
    file    = { path = "/etc/cron.daily/logrotate" }
    process = { executable = "/usr/bin/dpkg" }
  }

  event "file.create" {
    file    = { path = "/etc/cron.daily/man-db" }
    process = { executable = "/usr/bin/dash", ancestors = [{ executable = "/usr/bin/dpkg" }] }
  }

  expect {
    matched = false
  }
}

test "a unit is written" {
  policy = "service_changed"

  event "file.create" {
    file    = { path = "/etc/systemd/system/updater.service" }
    process = { executable = "/usr/bin/tee" }
  }

  expect {
    matched = true
  }
}

test "a unit is moved into place" {
  policy = "service_changed"

  event "file.rename" {
    file    = { path = "/root/x.service", target_path = "/usr/lib/systemd/system/x.service" }
    process = { executable = "/usr/bin/mv" }
  }

  expect {
    matched = true
  }
}

test "no unit, and one of a package" {
  policy = "service_changed"

  event "file.modify" {
    file = { path = "/etc/systemd/journald.conf" }
  }

  event "file.create" {
    file    = { path = "/usr/lib/systemd/system/nginx.service" }
    process = { executable = "/usr/bin/dpkg" }
  }

  expect {
    matched = false
  }
}

test "a key is added" {
  policy = "authorized_keys_changed"

  event "file.modify" {
    file = { path = "/home/bob/.ssh/authorized_keys" }
    user = { id = 33 }
  }

  expect {
    contains = ["uid 33"]
  }
}

test "keys are moved into place" {
  policy = "authorized_keys_changed"

  event "file.rename" {
    file = { path = "/tmp/k", target_path = "/root/.ssh/authorized_keys" }
  }

  expect {
    matched = true
  }
}

test "another file of ssh" {
  policy = "authorized_keys_changed"

  event "file.modify" {
    file = { path = "/home/bob/.ssh/known_hosts" }
  }

  expect {
    matched = false
  }
}

test "profiles" {
  policy = "login_profile_changed"

  event "file.modify" {
    file = { path = "/home/bob/.bashrc" }
  }

  event "file.create" {
    file = { path = "/etc/profile.d/x.sh" }
  }

  event "file.modify" {
    file = { path = "/etc/profile" }
  }

  # Moved into place.
  event "file.rename" {
    file = { path = "/tmp/x", target_path = "/root/.profile" }
  }

  event "file.rename" {
    file = { path = "/tmp/y", target_path = "/etc/profile.d/y.sh" }
  }

  event "file.rename" {
    file = { path = "/tmp/z", target_path = "/etc/profile" }
  }

  expect {
    verdicts = 6
  }
}

test "no profile, and one of a package" {
  policy = "login_profile_changed"

  event "file.modify" {
    file = { path = "/home/bob/notes" }
  }

  event "file.create" {
    file    = { path = "/etc/profile.d/vte.sh" }
    process = { executable = "/usr/bin/rpm" }
  }

  expect {
    matched = false
  }
}

test "preload is written" {
  policy = "library_preloaded"

  event "file.create" {
    file = { path = "/etc/ld.so.preload" }
  }

  event "file.rename" {
    file = { path = "/etc/x", target_path = "/etc/ld.so.preload" }
  }

  expect {
    verdicts = 2
  }
}

test "the loader's cache is not preload" {
  policy = "library_preloaded"

  event "file.rename" {
    file = { path = "/etc/ld.so.cache~", target_path = "/etc/ld.so.cache" }
  }

  expect {
    matched = false
  }
}

test "a shell with the bit in tmp" {
  policy = "borrowed_root"

  event "process.exec" {
    process = { executable = "/tmp/.sh", setuid = true }
    user    = { id = 1000, effective = { id = 0 } }
  }

  expect {
    actions  = ["pause", "alert"]
    contains = ["gave root to uid 1000"]
  }
}

test "sudo, another user's program, and no bit" {
  policy = "borrowed_root"

  event "process.exec" {
    process = { executable = "/usr/bin/sudo", setuid = true }
    user    = { id = 1000, effective = { id = 0 } }
  }

  event "process.exec" {
    process = { executable = "/home/bob/tool", setuid = true }
    user    = { id = 1000, effective = { id = 1001 } }
  }

  event "process.exec" {
    process = { executable = "/tmp/x" }
    user    = { id = 1000 }
  }

  expect {
    matched = false
  }
}
