policy "functions" {
  on = ["network.connect"]
  condition = (
    starts_with(process.executable, "/tmp") ||
    matches(process.command_line, "a(b") ||
    glob(process.executable, "/tmp/[a-") ||
    in_cidr(destination.ip, ["192.0.2.0/33"]) ||
    in_cidr(process.name, "10.0.0.0/8") ||
    contains(["192.0.2.7"], destination.ip) ||
    destination.ip == "2001:DB8::1" ||
    destination.ip == "10.0.0.0/8" ||
    port_in(destination.port, ["80-22"]) ||
    under(process.executable, "tmp") ||
    argv(-1) == "x" ||
    process.args[0] == "x" ||
    startswith(process.executable) ||
    matches(process.name, process.executable) ||
    between(event.time, "07:00", "19:00") ||
    between(event.time, "7:00", "19:00", "UTC") ||
    between(event.time, "07:00", "07:00", "UTC") ||
    weekday(event.time, "Local") == "Sunday" ||
    base64_contains(process.command_line, "sh") ||
    anytrue([for a in process.ancestors : a.nam == "x"]) ||
    anytrue([for process in process.ancestors : true]) ||
    has(process.args_truncated) ||
    event.origin == "vmi" ||
    network.direction != "outgoing" ||
    process.hash.sha256 == "ABCD" ||
    !null ||
    process.args == ["x"] ||
    step.download.file.path == "x" ||
    vm.metadata == "x" ||
    process.parent == "x" ||
    "true" ||
    has("x")
  )

  target {
    uuids     = ["NOT-A-UUID"]
    names     = ["web-["]
    metadata  = { zone = 1 }
    condition = process.pid == 1
  }

  cooldown {
    period = "5 minutes"
    by     = [process.args, file.path, lower(process.name)]
  }

  action "alert" {}
  action "pause" {
    resume_after = "5m"
  }
  action "pause" {}
  action "snapshot" {
    memory = true
  }
}
