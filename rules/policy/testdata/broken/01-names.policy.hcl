policy "names" {
  title     = "Wrong names"
  severty   = "high"
  on        = ["file.modfiy", "process.exec", "memory.integrity", "host.start"]
  condition = process.exe == "/bin/sh" && Image == "x" && proc.name == "y" && process.cmd_line == "z" && file.target == "t"

  colldown {
    period = "5m"
  }

  action "alrt" {
    message = "x"
  }
}

policy "Bad-Name" {
  on = ["file.modify"]
}

policy "types" {
  severity  = "urgent"
  mode      = "enforced"
  attack    = ["T1543", "1234"]
  on        = ["process.exec"]
  condition = process.parent.name != "sudo" && process.pid == "1" && user.id > "0" && process.executable && contains(["a", "b"], process.pid)

  action "alert" {
    message = "${process.nmae} and ${file.path}"
  }
}

policy "types" {
  on        = ["process.exec"]
  condition = list.shels || macro.is_shell || local.nope
}

policy "never_present" {
  on        = ["process.exec"]
  condition = file.path == "/etc/passwd"
  action "pause" {}
}

policy "never_true" {
  on        = ["process.exec", "file.modify"]
  condition = under(file.path, "/etc")
  action "pause" {}
}

policy "compares_missing" {
  on        = ["file.modify", "process.exec"]
  condition = file.size > 5
  action "pause" {}
}
