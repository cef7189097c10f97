bundle {
  name     = "broken tests"
  version  = "1"
  language = 1
}

policy "etc_changed" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")

  exception "resolver" {
    condition = file.path == "/etc/resolv.conf"
  }

  action "alert" {
    message = "m"
  }
}
