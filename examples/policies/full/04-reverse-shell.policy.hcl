policy "reverse_shell" {
  title       = "Shell connected to an external address"
  description = "A shell has no business outside; what it is about to do stands in its memory. False positives: busybox as a download tool, a shell's own /dev/tcp."
  severity    = "critical"
  attack      = ["T1059.004"]

  on        = ["network.connect"]
  condition = macro.is_shell && is_external(destination.ip) && network.direction == "egress"

  action "pause" {}
  action "snapshot" {
    memory = true
  }
  action "alert" {
    message = "${process.executable} (pid ${process.pid}) opened ${destination.ip}:${destination.port}"
  }
}
