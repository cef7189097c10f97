policy "here" {}

vm "web" {
  uid   = "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11"
  uuid  = "6B0C1A52"
  state = "runing"
}

vm "web" {}

test "misspelt" {
  policy = "etc_change"
  vm     = "wbe"
  start  = "yesterday"

  event "file.modfiy" {}

  event "file.modify" {
    att  = "+1s"
    file = { pth = "/etc/passwd", mode = "0644", size = -1, path = null }
    fil  = { path = "/etc/passwd" }
  }

  expect {
    matches = true
    actions = ["alrt"]
  }
}

test "impossible" {
  policy = "etc_changed"

  event "process.exec" {
    file = { path = "/etc/passwd" }
  }

  event "network.connect" {
    at          = "+1m"
    destination = { port = 443 }
  }

  event "file.modify" {
    at      = "+30s"
    every   = "soon"
    process = { command_line = file.path, ancestors = [{ nam = "bash" }] }
    user    = { name = "mallory" }
    event   = { time = "2026-01-01T00:00:00Z", type = "file.create" }
    vm      = { state = "running" }

    process {}
  }

  event "file.modify" "x" {}

  expect {
    matched   = "yes"
    verdicts  = -1
    exception = "resolve"
    step      = "one"
  }
}

test "nothing is expected" {
  policy = "etc_changed"

  event "file.modify" {
    file = { path = "/etc/passwd" }
  }

  expect {}
}

test "nothing happens" {
  policy = "etc_changed"

  recorded "../outside.jsonl" {}

  expect {
    matched = true
  }
}

test "nothing is said" {
  event "file.modify" {
    file = { path = "/etc/passwd" }
  }
}

test "misspelt" {
  policy = "etc_changed"

  recorded "none.jsonl" {}

  expect {
    matched = true
  }
}

test "approved by nobody" {
  policy = "etc_changed"

  approval "CHG-1" {
    group = "security-team"
    until = "next week"
    uses  = 3
  }

  approval "CHG-2" {
    group = "security-team"
    until = "1h"
  }

  event "file.modify" {
    file = { path = "/etc/passwd" }
  }

  expect {
    matched  = true
    approved = "CHG-2"
  }
}
