vm "off" {
  state = "shutoff"
}

test "a revert" {
  policy = "memory_taken_back"

  event "vm.epoch" {
    event = { reason = "revert" }
  }

  expect {
    message = "test-vm: revert"
  }
}

test "a start" {
  policy = "memory_taken_back"

  event "vm.epoch" {
    event = { reason = "start" }
  }

  expect {
    matched = false
  }
}

test "a long gap" {
  policy = "host_was_blind"

  event "vm.gap" {
    event = { reason = "connection lost" }
    gap   = { seconds = 90, changes = ["state"] }
  }

  expect {
    message = "test-vm: 90 s, connection lost; changed meanwhile: state"
  }
}

test "a short gap" {
  policy = "host_was_blind"

  event "vm.gap" {
    gap = { seconds = 2 }
  }

  expect {
    matched = false
  }
}

test "a disk is plugged in" {
  policy = "hardware_changed"

  event "vm.device_attach" {
    libvirt = { detail = "virtio-disk7" }
  }

  expect {
    message = "test-vm: device_attach, virtio-disk7"
  }
}

test "a disk of a domain that is off" {
  policy = "hardware_changed"
  vm     = "off"

  event "vm.change" {
    libvirt = { detail = "virtio-disk7" }
  }

  expect {
    matched = false
  }
}

test "hooks are missing" {
  policy = "watch_incomplete"

  event "agent.hooks" {
    agent = { uncovered = ["process.exec"] }
  }

  event "agent.hooks" {
    agent = { uncovered = ["file.modify"] }
  }

  event "agent.hooks" {
    agent = { uncovered = ["network.connect"] }
  }

  expect {
    verdicts = 3
  }
}

test "hooks that are not needed are missing" {
  policy = "watch_incomplete"

  event "agent.hooks" {
    agent = { uncovered = ["kernel.userfaultfd"] }
  }

  expect {
    matched = false
  }
}
