# A definition that changes while the domain exists, seen from the hypervisor.
policy "definition_changed" {
  title       = "The domain's definition or devices changed"
  description = "Hardware comes and goes from outside only. False positives: every planned change; send the alert to those who plan."
  severity    = "medium"
  attack      = ["T1578"]
  mode        = "audit"

  on        = ["vm.define", "vm.undefine", "vm.change", "vm.config_changed", "vm.device_attach", "vm.device_detach"]
  condition = event.origin == "host"

  action "alert" {
    message = "${vm.name}: ${event.action}, ${libvirt.detail}"
  }
}
