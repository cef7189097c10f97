policy "egress_allowlist" {
  title       = "Connection to an external address that is not on the allow list"
  description = "Packets are dropped on the host, whatever the guest says; what it tried is told. False positives: update mirrors and time servers that nobody put on the list."
  severity    = "high"
  mode        = "enforce"
  attack      = ["T1071", "T1048"]

  target {
    metadata = { zone = "restricted" }
  }

  # Prevention: a filter on the domain's own device, made when the bundle is loaded.
  prevent "egress" {
    allow = list.allowed_egress
    scope = "external"
  }

  # Detection: what the guest tells, and what the host's filter dropped.
  on        = ["network.connect", "network.drop"]
  condition = is_external(destination.ip) && !in_cidr(destination.ip, list.allowed_egress)

  cooldown {
    period = "10m"
    by     = [destination.ip]
  }

  action "alert" {
    message = "${vm.name} tried ${destination.ip}:${destination.port}, which is not allowed"
  }

  # Once may be an update; five addresses in a minute are not.
  escalate "repeated" {
    threshold {
      count    = 5
      distinct = destination.ip
      window   = "1m"
    }
    action "detach_network" {}
  }
}
