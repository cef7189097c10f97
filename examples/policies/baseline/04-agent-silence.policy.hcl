# The blind spots of the chain are events too. What the host finds cannot be
# forged by the guest; what the guest itself admits to have lost counts as well.
policy "agent_silenced" {
  title       = "The guest agent went silent, or its records cannot be trusted"
  description = "What is not seen is not safe. False positives: a guest that is stopped in a debugger, and hosts so busy that guests starve."
  severity    = "high"
  attack      = ["T1562.001"]
  mode        = "enforce"

  on = ["agent.heartbeat_lost", "agent.sequence_gap", "agent.signature_invalid", "agent.rollback", "agent.forked", "agent.cloned",
  "agent.absent", "agent.key_changed", "agent.coverage_low", "agent.coverage_lost"]
  condition = event.origin == "host" && !contains(["shutoff", "crashed", "paused"], vm.state)

  cooldown {
    period = "1m"
    by     = [event.type]
  }

  action "alert" {
    message = "${vm.name}: ${event.type} (${event.reason}), silent for ${agent.silent_seconds} s"
  }
}

policy "observations_lost" {
  title       = "Observations were lost"
  description = "A guest that does too much at once, or one that floods its agent on purpose. False positives: storms of honest work, such as builds on a small guest."
  severity    = "medium"
  attack      = ["T1562.001"]
  mode        = "enforce"

  on        = ["agent.dropped"]
  condition = lost.count > 0

  cooldown {
    period = "1m"
    by     = [lost.author]
  }

  action "alert" {
    message = "${vm.name}: ${lost.count} observations lost, says the ${lost.author}: ${lost.reasons}"
  }
}
