# The engine's own blind spots are entries too. The origin is the host: the guest
# cannot forge it.
policy "agent_silenced" {
  title       = "The guest agent went silent or lost events while the VM is running"
  description = "What is not seen is not safe. False positives: a guest that is stopped in a debugger."
  severity    = "high"
  mode        = "enforce"
  attack      = ["T1562.001"]

  on        = ["agent.heartbeat_lost", "agent.sequence_gap", "agent.signature_invalid", "agent.absent", "agent.key_changed", "agent.coverage_low", "agent.coverage_lost"]
  condition = event.origin == "host" && vm.state == "running"

  action "alert" {
    message = "no verified events from ${vm.name}: ${event.reason}"
  }
}
