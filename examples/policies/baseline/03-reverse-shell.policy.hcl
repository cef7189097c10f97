policy "reverse_shell" {
  title       = "Shell connected to an external address"
  description = "A shell has no business outside. False positives: busybox as a download tool, a shell's own /dev/tcp."
  severity    = "critical"
  attack      = ["T1059.004", "T1071"]
  mode        = "audit"

  on        = ["network.connect"]
  condition = macro.is_shell && is_external(destination.ip) && !port_in(destination.port, [53, 123])

  cooldown {
    period = "1m"
    by     = [process.entity_id, destination.ip]
  }

  action "pause" {}
  action "alert" {
    message = "${vm.name}: ${process.executable} (pid ${process.pid}) connected to ${destination.ip}:${destination.port}"
  }
}
