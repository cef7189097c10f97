# What single events do not show: counts, orders, and things never seen before.

list "monitors" {
  type   = "string"
  values = ["prometheus", "node_exporter", "zabbix_server", "nagios", "telegraf"]
}

list "downloaders" {
  type   = "string"
  values = ["curl", "wget", "wget2", "aria2c", "python3", "python3.11", "python3.13", "perl", "scp", "sftp", "sftp-server", "ftp", "rsync"]
}

policy "many_files_renamed" {
  title       = "One process gave many files a new ending"
  description = "Files that are encrypted get a new ending, one after the other. False positives: tools that keep old versions beside the new ones, and photographers."
  severity    = "critical"
  attack      = ["T1486"]

  on        = ["file.rename"]
  condition = startswith(file.target_path, file.path) && !under_any(file.path, ["/tmp", "/var/tmp", "/var/log", "/var/cache"]) && !macro.by_package_manager

  threshold {
    count    = 100
    distinct = file.path
    by       = [process.entity_id]
    window   = "1m"
  }

  cooldown {
    period = "10m"
    by     = [process.entity_id]
  }

  action "pause" {}
  action "alert" {
    message = "${vm.name}: ${process.executable} (pid ${process.pid}, uid ${user.id}) renamed ${threshold.count} files in ${threshold.window}, the last to ${file.target_path}"
  }
}

policy "internal_port_scan" {
  title       = "One process contacts many hosts of the inside"
  description = "Intruders look around. False positives: monitoring and inventory that is not on the list."
  severity    = "medium"
  attack      = ["T1046", "T1018"]

  on        = ["network.connect"]
  condition = is_private(destination.ip) && !contains(list.monitors, process.name)

  threshold {
    count    = 50
    distinct = destination.ip
    by       = [process.entity_id]
    window   = "1m"
  }

  cooldown {
    period = "30m"
    by     = [process.entity_id]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable} contacted ${threshold.count} hosts in ${threshold.window}"
  }
}

policy "download_then_execute" {
  title       = "A file was downloaded to a temporary directory and started"
  description = "The first thing an intruder does after getting in. False positives: installers that are piped into a shell, and builds."
  severity    = "high"
  attack      = ["T1105", "T1222.002", "T1059"]

  sequence {
    within = "10m"

    step "download" {
      on        = ["file.create"]
      condition = contains(list.downloaders, process.name) && under_any(file.path, ["/tmp", "/var/tmp", "/dev/shm"])
    }
    step "run" {
      on        = ["process.exec"]
      condition = process.executable == step.download.file.path || process.script == step.download.file.path
    }
    reset {
      on        = ["file.delete"]
      condition = file.path == step.download.file.path
    }
  }

  action "alert" {
    message = "${vm.name}: ${step.download.process.name} wrote ${step.download.file.path}, and ${process.parent.executable} started it"
  }
}

policy "login_guessed" {
  title       = "Many failed logins, then one that succeeded, from one address"
  description = "Guessing that came to an end. False positives: users who forget, behind one address of an office."
  severity    = "high"
  attack      = ["T1110.001"]

  sequence {
    by     = [source.ip]
    within = "15m"

    step "failures" {
      on        = ["auth.login"]
      condition = event.outcome == "failure" && startswith(process.name, "sshd")
      count     = 10
    }
    step "success" {
      on        = ["auth.login"]
      condition = event.outcome == "success" && startswith(process.name, "sshd")
    }
  }

  action "alert" {
    message = "${vm.name}: login of ${user.name} from ${source.ip} after ${step.failures.count} failures"
  }
}

policy "new_listener" {
  title       = "A program listens where none has in two weeks"
  description = "Back doors listen. False positives: every new service, once."
  severity    = "low"
  attack      = ["T1571"]

  on        = ["network.listen"]
  condition = network.transport == "tcp" && !in_cidr(source.ip, ["127.0.0.0/8", "::1/128"])

  first_seen {
    by      = [process.executable, source.port]
    history = "14d"
    learn   = "1d"
  }

  action "alert" {
    message = "${vm.name}: ${process.executable}, uid ${user.id}, listens at ${source.ip}:${source.port}"
  }
}

policy "agent_silenced_by_force" {
  title       = "The guest agent fell silent after somebody acted against it"
  description = "Silence alone may be a crash; silence after an attack is none. False positives: an administrator who kills the agent by hand."
  severity    = "critical"
  attack      = ["T1562.001"]

  sequence {
    within = "10m"

    step "attack" {
      on = ["agent.tamper"]
    }
    step "silence" {
      on        = ["agent.heartbeat_lost"]
      condition = vm.state == "running"
    }
    reset {
      on = ["agent.stopped"]
    }
  }

  action "pause" {}
  action "alert" {
    message = "${vm.name}: silent after ${step.attack.tamper.kind} by ${step.attack.process.executable}"
  }
}
