policy "executed_from_temporary_directory" {
  title       = "A program was started from a temporary directory"
  description = "Where anybody may write, nothing should be run from. False positives: installers that unpack themselves, and builds in /tmp."
  severity    = "medium"
  attack      = ["T1059", "T1204.002"]
  mode        = "audit"

  # The executable of a script is its interpreter. Its path is as it was passed to exec, so
  # it may be relative. "sh /tmp/x" is not seen: there x is an argument.
  on = ["process.exec"]
  condition = (
    under_any(process.executable, local.temporary) ||
    under_any(process.script, local.temporary) ||
    has(process.script) && !startswith(process.script, "/") && under_any(process.working_directory, local.temporary)
  ) && !macro.by_package_manager

  cooldown {
    period = "5m"
    by     = [process.executable, process.script]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable} (${process.command_line}) started by ${process.parent.executable}"
  }
}
