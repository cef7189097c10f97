# What intruders come for: other people's processors, and other people's data.

list "mining_pools" {
  type   = "string"
  values = [".minexmr.com", ".supportxmr.com", ".nanopool.org", ".hashvault.pro", ".moneroocean.stream", ".f2pool.com", ".2miners.com"]
}

policy "miner_started" {
  title       = "A program was started like a miner"
  description = "Miners speak stratum, and say so on their command line. False positives: operators of mining pools, and researchers."
  severity    = "high"
  attack      = ["T1496.001"]

  on        = ["process.exec"]
  condition = matches(process.command_line, "stratum\\+?[0-9a-z]*://") || has_arg("--donate-level") || has_arg("--randomx-1gb-pages")

  action "pause" {}
  action "alert" {
    message = "${vm.name}: ${process.command_line}, uid ${user.id}, started by ${process.parent.executable}"
  }
}

policy "mining_pool_asked" {
  title       = "The name of a mining pool was asked for"
  description = "A guest that asks for a pool mines, or will. False positives: people who read a pool's web site on a desktop."
  severity    = "medium"
  attack      = ["T1496.001"]

  on        = ["dns.query"]
  condition = anytrue([for suffix in list.mining_pools : endswith_i(dns.question.name, suffix)])

  cooldown {
    period = "1h"
    by     = [dns.question.name]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable}, uid ${user.id}, asks for ${dns.question.name}"
  }
}

policy "way_back_removed" {
  title       = "Snapshots or backups were removed"
  description = "Who takes data hostage removes the way back first. False positives: rotation of snapshots; add its executable to the condition."
  severity    = "high"
  attack      = ["T1490"]

  on = ["process.exec"]
  condition = (
    basename(process.executable) == "btrfs" && has_arg("subvolume") && has_arg("delete") ||
    basename(process.executable) == "zfs" && has_arg("destroy") ||
    contains(["lvremove", "vgremove", "wipefs"], basename(process.executable))
  )

  action "alert" {
    message = "${vm.name}: ${process.command_line}, uid ${user.id}, started by ${process.parent.executable}"
  }
}
