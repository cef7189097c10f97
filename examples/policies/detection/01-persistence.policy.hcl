# How an intruder comes back after a restart: jobs, services, keys, profiles,
# libraries, and programs that lend root.

locals {
  anybody_writes   = ["/tmp", "/var/tmp", "/dev/shm", "/home"]
  job_directories  = ["/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly", "/var/spool/cron", "/etc/crontab"]
  unit_directories = ["/etc/systemd/system", "/etc/systemd/user", "/usr/lib/systemd/system", "/lib/systemd/system"]
}

list "profile_names" {
  type   = "string"
  values = [".bashrc", ".bash_profile", ".bash_login", ".profile", ".zshrc", ".zprofile"]
}

policy "job_changed" {
  title       = "A scheduled job changed"
  description = "Cron jobs start again after every restart. False positives: administrators who edit crontabs, and configuration management; add its executable to the list of package managers."
  severity    = "medium"
  attack      = ["T1053.003"]

  on        = ["file.create", "file.modify", "file.rename"]
  condition = (under_any(file.path, local.job_directories) || under_any(file.target_path, local.job_directories)) && !macro.by_package_manager

  cooldown {
    period = "1m"
    by     = [file.path, file.target_path]
  }

  action "alert" {
    message = "${vm.name}: ${event.action} of ${file.path} (new path ${file.target_path}) by ${process.executable}, uid ${user.id}"
  }
}

policy "service_changed" {
  title       = "A service of systemd changed"
  description = "Units run as root at every start. False positives: administrators, and installers that are no package manager."
  severity    = "medium"
  attack      = ["T1543.002"]

  on        = ["file.create", "file.modify", "file.rename"]
  condition = (under_any(file.path, local.unit_directories) || under_any(file.target_path, local.unit_directories)) && !macro.by_package_manager

  cooldown {
    period = "1m"
    by     = [file.path, file.target_path]
  }

  action "alert" {
    message = "${vm.name}: ${event.action} of ${file.path} (new path ${file.target_path}) by ${process.executable}, uid ${user.id}"
  }
}

policy "authorized_keys_changed" {
  title       = "SSH keys of an account changed"
  description = "Who adds a key logs in without a password. False positives: ssh-copy-id, cloud-init at the first start, and tools that hand out keys."
  severity    = "high"
  attack      = ["T1098.004"]

  on        = ["file.create", "file.modify", "file.rename"]
  condition = endswith(file.path, "/.ssh/authorized_keys") || endswith(file.target_path, "/.ssh/authorized_keys")

  action "alert" {
    message = "${vm.name}: ${event.action} of ${file.path} (new path ${file.target_path}) by ${process.executable}, uid ${user.id}"
  }
}

policy "login_profile_changed" {
  title       = "What a shell runs at login changed"
  description = "Profiles run with the rights of whoever logs in. False positives: users who tend their own shells, and installers of languages and tools."
  severity    = "low"
  attack      = ["T1546.004"]

  on = ["file.create", "file.modify", "file.rename"]
  condition = (
    contains(list.profile_names, basename(file.path)) || under(file.path, "/etc/profile.d") || file.path == "/etc/profile" ||
    contains(list.profile_names, basename(file.target_path)) || under(file.target_path, "/etc/profile.d") || file.target_path == "/etc/profile"
  ) && !macro.by_package_manager

  cooldown {
    period = "10m"
    by     = [file.path, file.target_path]
  }

  action "alert" {
    message = "${vm.name}: ${event.action} of ${file.path} (new path ${file.target_path}) by ${process.executable}, uid ${user.id}"
  }
}

policy "library_preloaded" {
  title       = "A library is put into every program"
  description = "Nearly nobody but rootkits writes /etc/ld.so.preload. False positives: some memory allocators and profilers that are installed for the whole system."
  severity    = "critical"
  attack      = ["T1574.006"]

  on        = ["file.create", "file.modify", "file.rename"]
  condition = file.path == "/etc/ld.so.preload" || file.target_path == "/etc/ld.so.preload"

  action "alert" {
    message = "${vm.name}: ${event.action} of ${file.path} (new path ${file.target_path}) by ${process.executable}, uid ${user.id}"
  }
}

policy "borrowed_root" {
  title       = "A set-user-id program ran from where anybody may write"
  description = "A copy of a shell with the set-user-id bit is a way back to root. False positives: packages that are unpacked and tried in /tmp."
  severity    = "high"
  attack      = ["T1548.001"]

  on        = ["process.exec"]
  condition = process.setuid && user.effective.id == 0 && under_any(process.executable, local.anybody_writes)

  action "pause" {}
  action "alert" {
    message = "${vm.name}: ${process.executable} gave root to uid ${user.id}"
  }
}
