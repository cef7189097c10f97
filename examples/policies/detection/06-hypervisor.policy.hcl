# What changes a guest from outside, seen by the host: no guest can forge it.

policy "memory_taken_back" {
  title       = "The domain went back to an earlier state"
  description = "A revert brings back what was patched, and drops what was seen since. False positives: every planned revert or restore."
  severity    = "medium"
  attack      = ["T1578.004"]

  on        = ["vm.epoch"]
  condition = contains(["restore", "revert"], event.reason)

  action "alert" {
    message = "${vm.name}: ${event.reason}"
  }
}

policy "host_was_blind" {
  title       = "The host could not see the domain for more than a minute"
  description = "What happened to it meanwhile, only the guest tells. False positives: restarts of libvirt or of Provost that take long."
  severity    = "medium"
  attack      = ["T1562.001"]

  on        = ["vm.gap"]
  condition = gap.seconds > 60

  action "alert" {
    message = "${vm.name}: ${gap.seconds} s, ${event.reason}; changed meanwhile: ${gap.changes}"
  }
}

policy "hardware_changed" {
  title       = "A device was attached to or taken from a running domain"
  description = "A disk or a host device is a way around the guest. False positives: planned changes of hardware."
  severity    = "medium"
  attack      = ["T1200"]

  on        = ["vm.device_attach", "vm.device_detach", "vm.config_changed", "vm.change"]
  condition = vm.state == "running"

  cooldown {
    period = "1m"
    by     = [event.type, libvirt.detail]
  }

  action "alert" {
    message = "${vm.name}: ${event.action}, ${libvirt.detail}"
  }
}

policy "watch_incomplete" {
  title       = "The guest agent watches less than it should"
  description = "Its kernel lacks hooks for what policies need most. False positives: kernels that are old or built without BPF; replace them, or narrow this policy to others."
  severity    = "medium"
  attack      = ["T1562.001"]

  on        = ["agent.hooks"]
  condition = contains(agent.uncovered, "process.exec") || contains(agent.uncovered, "file.modify") || contains(agent.uncovered, "network.connect")

  action "alert" {
    message = "${vm.name}: kernel ${agent.kernel}, ${agent.mode}; not covered: ${agent.uncovered}"
  }
}
