policy "webserver_spawned_shell" {
  title       = "A shell or interpreter descends from a web server"
  description = "Web shells. False positives: applications that call programs, and hooks of packages; make each an exception with an end."
  severity    = "high"
  mode        = "enforce"
  attack      = ["T1505.003", "T1190"]

  target {
    names = local.web_vms
  }

  on = ["process.exec"]
  condition = (
    (macro.is_shell || contains(["python3", "perl", "php"], process.name)) &&
    anytrue([for a in process.ancestors : contains(["nginx", "apache2", "httpd", "php-fpm"], a.name)])
  )

  exception "log rotation" {
    condition = startswith(process.command_line, "/bin/sh -c [ -x /usr/sbin/invoke-rc.d ]")
    reason    = "nginx logrotate postrotate hook, CHG-2291"
    expires   = "2027-03-31"
  }

  action "snapshot" {}
  action "alert" {
    message = "${process.command_line} below ${process.parent.name}"
  }
}
