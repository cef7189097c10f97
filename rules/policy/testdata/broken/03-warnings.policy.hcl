policy "warnings" {
  on        = ["file.modify", "process.exec", "process.exec"]
  condition = startswith(process.executable, "/etc") && file.path != "/x"
}

policy "always" {
  on        = ["file.modify"]
  attack    = ["T1059.004", "T1059.099", "T9999"]
  condition = 1 == 1
  target {}
}

policy "never" {
  on        = ["file.modify"]
  condition = false
}

policy "not_a_condition" {
  on        = ["process.exec"]
  condition = process.name
  action "pause" {}
}

policy "loops" {
  on        = ["process.exec"]
  condition = anytrue([for a in process.ancestors : a.exe == "x"]) || anytrue([for s in process.args : s.name == "x"]) || anytrue([for s in process.args : contains(process.args, s)])
  action "pause" {}
}
