# A rename or link is judged by both of its paths: moving a prepared file over
# /etc/passwd touches /etc only by its target.
#
# False positives: administration and configuration management. Name their
# executables in the condition, or set mode = "audit" while you learn.
policy "etc_changed" {
  title      = "File under /etc changed"
  owner      = "security-team"
  references = ["https://attack.mitre.org/techniques/T1543/"]
  tags       = ["integrity", "persistence"]
  severity   = "high"
  attack     = ["T1543", "T1556"]
  mode       = "enforce"

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
