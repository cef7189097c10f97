# A signed approval covers a change: it is used, counted, and nobody is alerted. One
# that comes within ten minutes closes the alert.
policy "etc_modified_without_approval" {
  title       = "File under /etc changed without approval from the Security Team"
  description = "Every change of /etc that no approval covers. False positives: packages and configuration management; approve their runs, or make each an exception with an end."
  severity    = "high"
  mode        = "enforce"
  attack      = ["T1543", "T1556"]
  owner       = "security-team"

  on        = ["file.create", "file.modify", "file.delete", "file.rename", "file.chmod"]
  condition = under(file.path, "/etc") || under(file.target_path, "/etc")

  approval {
    group = "security-team"
    grace = "10m"
  }

  exception "resolver state" {
    condition = file.path == "/etc/resolv.conf" && process.executable == "/usr/lib/systemd/systemd-resolved"
    reason    = "Rewritten by systemd-resolved on every DHCP lease"
    expires   = "2027-06-30"
  }

  cooldown {
    period = "5m"
    by     = [file.path]
  }

  action "alert" {
    message = "${file.path} changed by ${process.executable} (uid ${user.id}) on ${vm.name} without approval"
  }
}
