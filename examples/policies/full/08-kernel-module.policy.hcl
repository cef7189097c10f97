policy "kernel_module_outside_update" {
  title       = "Kernel module loaded outside an update"
  description = "Two of the platform team approve what is not the distribution's. False positives: kernels that do not tell whether a module is signed, and drivers that are built by hand."
  severity    = "critical"
  mode        = "enforce"
  attack      = ["T1547.006", "T1014"]

  on        = ["kernel.module_load"]
  condition = !module.signed || !(under(module.path, "/lib/modules") || under(module.path, "/usr/lib/modules"))

  approval {
    group   = "platform-team"
    require = 2
  }

  action "pause" {}
  action "snapshot" {
    memory = true
  }
  action "alert" {
    message = "module ${module.name} from ${module.path} (signed: ${module.signed})"
  }
}
