policy "internal_port_scan" {
  title       = "One process contacts many hosts"
  description = "Intruders look around. False positives: monitoring and inventory; name it in the condition."
  severity    = "medium"
  mode        = "enforce"
  attack      = ["T1046"]

  on        = ["network.connect"]
  condition = is_private(destination.ip) && !contains(["prometheus", "node_exporter"], process.name)

  threshold {
    count    = 50
    distinct = destination.ip
    by       = [process.entity_id]
    window   = "60s"
  }

  cooldown {
    period = "30m"
    by     = [process.entity_id]
  }

  action "alert" {
    message = "${process.executable} contacted ${threshold.count} hosts in ${threshold.window}"
  }
}
