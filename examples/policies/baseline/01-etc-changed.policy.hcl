# A rename or link is judged by both of its paths: moving a prepared file over
# /etc/passwd touches /etc only by its target.
policy "etc_changed" {
  title       = "File under /etc changed"
  description = "Most of what an intruder changes to stay lies there. False positives: administration and configuration management; name their executables in the condition, or set the mode to audit while you learn."
  owner       = "security-team"
  references  = ["https://attack.mitre.org/techniques/T1543/"]
  tags        = ["integrity", "persistence"]
  severity    = "high"
  attack      = ["T1543", "T1556"]
  mode        = "enforce"

  on        = ["file.create", "file.modify", "file.delete", "file.rename"]
  condition = (under(file.path, "/etc") || under(file.target_path, "/etc")) && !macro.by_package_manager

  cooldown {
    period = "10s"
    by     = [event.type, file.path, file.target_path, process.entity_id]
  }

  action "alert" {
    message = "${vm.name}: ${event.type} ${file.path} (new path ${file.target_path}) by ${process.executable}, pid ${process.pid}, uid ${user.id}"
  }
}
