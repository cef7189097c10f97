policy "device_attached_out_of_hours" {
  title       = "Disk or host device attached, or definition changed, outside working hours"
  description = "What changes a machine from outside is planned, or an incident. False positives: plans for the weekend that nobody told the approvers."
  severity    = "medium"
  mode        = "enforce"
  attack      = ["T1200"]

  on        = ["vm.device_attach", "vm.define", "vm.migrate"]
  condition = event.origin == "host" && (!between(event.time, "07:00", "19:00", "Europe/Zurich") || contains(["Saturday", "Sunday"], weekday(event.time, "Europe/Zurich")))

  approval {
    group = "virtualisation-team"
  }

  action "alert" {
    message = "${event.action} on ${vm.name}: ${libvirt.detail}"
  }
}
