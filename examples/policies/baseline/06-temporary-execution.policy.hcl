policy "executed_from_temporary_directory" {
  title       = "A program was started from a temporary directory"
  description = "Where anybody may write, nothing should be run from. False positives: installers that unpack themselves, and builds in /tmp."
  severity    = "medium"
  attack      = ["T1059", "T1204.002"]
  mode        = "audit"

  on        = ["process.exec"]
  condition = under_any(process.executable, local.temporary) && !macro.by_package_manager

  cooldown {
    period = "5m"
    by     = [process.executable]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable} (${process.command_line}) started by ${process.parent.executable}"
  }
}
