# How an intruder hides: traces removed, protection stopped, programs without files.

list "log_keepers" {
  type   = "path"
  values = ["/usr/sbin/logrotate", "/usr/sbin/rsyslogd", "/usr/lib/systemd/systemd-journald", "/usr/bin/journalctl"]
}

list "history_names" {
  type   = "string"
  values = [".bash_history", ".zsh_history", ".python_history", ".mysql_history"]
}

list "protection_units" {
  type   = "string"
  values = ["auditd", "auditd.service", "apparmor", "apparmor.service", "rsyslog", "rsyslog.service", "systemd-journald", "systemd-journald.service", "systemd-journald.socket", "fail2ban", "provost-agent", "provost-agent.service"]
}

policy "log_removed" {
  title       = "A log was removed or emptied"
  description = "Logs grow and are rotated; who empties them hides something. False positives: services that keep their own logs, and clean-up scripts."
  severity    = "medium"
  attack      = ["T1070.002"]

  on        = ["file.delete", "file.truncate"]
  condition = under(file.path, "/var/log") && !contains(list.log_keepers, process.executable) && !contains(list.log_keepers, process.parent.executable) && !macro.by_package_manager

  cooldown {
    period = "10m"
    by     = [process.executable]
  }

  action "alert" {
    message = "${vm.name}: ${event.action} of ${file.path} by ${process.executable}, uid ${user.id}"
  }
}

policy "history_removed" {
  title       = "The history of a shell was removed or emptied"
  description = "Shells add to their history and do not remove it. False positives: users who clear it for reasons of their own, and accounts that are deleted."
  severity    = "low"
  attack      = ["T1070.003"]

  on        = ["file.delete", "file.truncate"]
  condition = contains(list.history_names, file.name)

  action "alert" {
    message = "${vm.name}: ${event.action} of ${file.path} by ${process.executable}, uid ${user.id}"
  }
}

policy "protection_stopped" {
  title       = "Protection was stopped"
  description = "An intruder stops what watches. False positives: maintenance, and packages that restart their services by stopping them."
  severity    = "high"
  attack      = ["T1562.001", "T1562.012"]

  on = ["process.exec"]
  condition = (
    basename(process.executable) == "systemctl" && (has_arg("stop") || has_arg("disable") || has_arg("mask")) && intersects(process.args, list.protection_units) ||
    basename(process.executable) == "setenforce" && has_arg("0")
  ) && !macro.by_package_manager

  action "alert" {
    message = "${vm.name}: ${process.command_line}, uid ${user.id}, started by ${process.parent.executable}"
  }
}

policy "program_without_file" {
  title       = "A program ran that lies in no directory"
  description = "Loaders hide programs in memory. False positives: container runtimes, which start themselves from a sealed copy in memory (runc), and some just-in-time launchers."
  severity    = "high"
  attack      = ["T1620"]

  on        = ["process.exec"]
  condition = process.in_memfd && !(process.name == "runc" || process.name == "crun" || startswith(process.name, "runc:["))

  action "pause" {}
  action "alert" {
    message = "${vm.name}: ${process.command_line} runs from memory, uid ${user.id}, started by ${process.parent.executable}"
  }
}

policy "agent_tampered" {
  title       = "Somebody acts against the guest agent"
  description = "Signals, tracing, its programs and files: the agent says who. False positives: administrators who stop it by hand, instead of with provost domain agent-stop."
  severity    = "high"
  attack      = ["T1562.001"]

  on = ["agent.tamper"]

  cooldown {
    period = "1m"
    by     = [tamper.kind, process.executable]
  }

  action "alert" {
    message = "${vm.name}: ${tamper.kind} by ${process.executable} (pid ${process.pid}), refused: ${tamper.refused}"
  }
}

policy "foreign_kernel_module" {
  title       = "A kernel module was loaded from elsewhere"
  description = "Modules of the distribution lie in one place. False positives: drivers that are built and tried by hand."
  severity    = "critical"
  attack      = ["T1547.006", "T1014"]

  on        = ["kernel.module_load"]
  condition = !(under(module.path, "/lib/modules") || under(module.path, "/usr/lib/modules"))

  action "alert" {
    message = "${vm.name}: module ${module.name} from ${module.path} by ${process.executable}"
  }
}

policy "file_made_immutable" {
  title       = "A file was made immutable"
  description = "Intruders protect their own files like this. False positives: hardening scripts, and tools that hold /etc/resolv.conf."
  severity    = "low"
  attack      = ["T1222.002"]

  on        = ["file.attributes"]
  condition = contains(file.attributes, "immutable") && file.path != "/etc/resolv.conf"

  action "alert" {
    message = "${vm.name}: ${file.path} by ${process.executable}, uid ${user.id}"
  }
}
