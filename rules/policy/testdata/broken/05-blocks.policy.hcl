policy "arguments" {
  on       = ["file.modify", "memory.integrity"]
  on_error = "panic"

  condition {
    x = 1
  }

  exception "no condition" {
    reason  = "x"
    expires = "31.12.2026"
  }
  exception "no condition" {
    condition = file.pth == "x"
    until     = "2027-01-01"
  }
  approval {
    groups  = "g"
    require = 0
    grace   = "soon"
  }
  limit {
    max   = 1.5
    scope = "hst"
    then  = "panic"
  }
  cooldown {
    by = [process.args, file.pth]
  }
  prevent "ingress" {}
  prevent "egress" {
    allow = ["192.0.2.7/24"]
    scope = "some"
  }
  prevent "egress" {}
}

policy "must_explain" {
  on        = ["process.exec"]
  mode      = "enforce"
  condition = process.name == "x"
  exception "bare" {
    condition = user.id == 0
  }
  action "pause" {}
}

policy "actions" {
  on        = ["vm.define", "file.modify"]
  condition = has(vm.name)
  action "alert" {
    message = "${step.x.process.name} ${threshold.count}"
  }
  action "suspend" {}
  action "pause" {
    resume_after = 5
  }
  action "snapshot" {
    memory = "yes"
    label  = "a\nb"
    keep   = 0
  }
  action "detach_network" {
    interfaces = ["vnet0", "a b"]
  }
  action "quarantine" {
    network = "off"
    pause   = 1
    release = "never"
  }
  action "kill_process" {}
  action "pause" {}
  limit {
    max   = 1
    per   = "1h"
    scope = "vm"
  }
}

policy "windows" {
  on        = ["network.connect"]
  condition = has(destination.ip)
  threshold {
    count    = 1
    distinct = [destination.ip]
    by       = [file.path]
    window   = "40d"
    max_keys = 1000000
  }
  first_seen {
    history = "2y"
    learn   = "1d"
  }
  escalate "Again" {
    action "pause" {}
  }
  escalate "again" {}
  action "alert" {
    message = "${threshold.counts} in ${threshold.window.x}"
  }
}

policy "steps" {
  on        = ["file.modify"]
  condition = true
  sequence {
    within = "10m"

    step "first" {
      on        = ["file.create"]
      condition = file.path == step.second.file.path
    }
    step "second" {
      on        = ["file.chmod"]
      condition = step.frist.file.path == file.path && step.first.destination.ip == "x" && step.first.file.pth == "x" && step.first == "x" && step.first.count == "1"
      by        = [vm.uuid]
    }
    step "first" {
      on        = ["process.exec"]
      condition = contains(step.first.process.args, "x")
      count     = 0
    }
    reset {
      condition = step.first.file.path == file.path
    }
  }
  threshold {
    count  = 5
    window = "1m"
  }
  action "alert" {
    message = "${step.third.file.path}"
  }
}

policy "short_sequence" {
  sequence {
    step "only" {
      on = ["process.exec"]
    }
  }
}
