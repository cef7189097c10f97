# A definition that changes while the domain exists, seen from the hypervisor.
#
# False positives: every planned change. Route the alert to those who plan.
policy "definition_changed" {
  title    = "The domain's definition or devices changed"
  severity = "medium"
  attack   = ["T1578"]
  mode     = "audit"

  on        = ["vm.define", "vm.undefine", "vm.change", "vm.device_attach", "vm.device_detach"]
  condition = event.origin == "host"

  action "alert" {
    message = "${vm.name}: ${event.action}, ${libvirt.detail}"
  }
}
