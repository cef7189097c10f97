test "a miner" {
  policy = "miner_started"

  event "process.exec" {
    process = { executable = "/tmp/kdev", command_line = "kdev -o stratum+ssl://pool.example:443" }
  }

  event "process.exec" {
    process = { executable = "/tmp/kdev", args = ["kdev", "--donate-level", "1"] }
  }

  event "process.exec" {
    process = { executable = "/tmp/kdev", args = ["kdev", "--randomx-1gb-pages"] }
  }

  expect {
    verdicts = 3
    contains = ["stratum+ssl://pool.example:443"]
  }
}

test "no miner" {
  policy = "miner_started"

  event "process.exec" {
    process = { executable = "/usr/bin/curl", command_line = "curl https://stratum.example/" }
  }

  expect {
    matched = false
  }
}

test "a pool" {
  policy = "mining_pool_asked"

  event "dns.query" {
    dns = { question = { name = "XMR-eu1.nanopool.org" } }
  }

  expect {
    matched = true
  }
}

test "another name" {
  policy = "mining_pool_asked"

  event "dns.query" {
    dns = { question = { name = "www.example.org" } }
  }

  expect {
    matched = false
  }
}

test "the way back" {
  policy = "way_back_removed"

  event "process.exec" {
    process = { executable = "/usr/bin/btrfs", command_line = "btrfs subvolume delete /.snapshots/1" }
  }

  event "process.exec" {
    process = { executable = "/usr/sbin/zfs", command_line = "zfs destroy -r tank@daily" }
  }

  event "process.exec" {
    process = { executable = "/usr/sbin/lvremove", command_line = "lvremove -f vg/snap" }
  }

  expect {
    verdicts = 3
  }
}

test "the same tools at work" {
  policy = "way_back_removed"

  event "process.exec" {
    process = { executable = "/usr/bin/btrfs", command_line = "btrfs subvolume list /" }
  }

  event "process.exec" {
    process = { executable = "/usr/bin/btrfs", command_line = "btrfs device delete /dev/vdb /" }
  }

  event "process.exec" {
    process = { executable = "/usr/sbin/zfs", command_line = "zfs list" }
  }

  expect {
    matched = false
  }
}
