# How an intruder comes by the secrets of others.

list "account_tools" {
  type   = "path"
  values = ["/usr/bin/passwd", "/usr/bin/chage", "/usr/sbin/chpasswd", "/usr/sbin/pwck", "/usr/sbin/usermod", "/usr/sbin/vipw"]
}

list "cloud_agents" {
  type   = "path"
  values = ["/usr/bin/google_guest_agent", "/usr/bin/amazon-ssm-agent", "/snap/amazon-ssm-agent/current/amazon-ssm-agent"]
}

# These are scripts: their executable is python's, which is not to be trusted as such.
list "cloud_scripts" {
  type   = "path"
  values = ["/usr/bin/cloud-init", "/usr/sbin/waagent"]
}

list "keepers_of_secrets" {
  type   = "string"
  values = ["sshd", "sshd-session", "sshd-auth", "sssd", "sssd_be", "login", "sudo", "su", "gnome-keyring-d", "ssh-agent", "gpg-agent"]
}

policy "password_file_named" {
  title       = "A program was started on the file of password hashes"
  description = "Copying and cracking begin with its name on a command line. False positives: backup scripts that name single files, and administrators who look."
  severity    = "high"
  attack      = ["T1003.008"]

  on        = ["process.exec"]
  condition = (has_arg("/etc/shadow") || has_arg("/etc/gshadow") || has_arg("/etc/shadow-")) && !contains(list.account_tools, process.executable)

  cooldown {
    period = "10m"
    by     = [process.executable, user.id]
  }

  action "alert" {
    message = "${vm.name}: ${process.command_line}, uid ${user.id}, started by ${process.parent.executable}"
  }
}

policy "secrets_traced" {
  title       = "A process looked into one that holds secrets"
  description = "Passwords stand in the memory of what checks them. False positives: debuggers of developers, and crash handlers."
  severity    = "high"
  attack      = ["T1003.007", "T1055.008"]

  on        = ["process.trace"]
  condition = contains(list.keepers_of_secrets, process.object.name) && process.name != "systemd-coredump"

  cooldown {
    period = "5m"
    by     = [process.entity_id]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable} (pid ${process.pid}) traces ${process.object.name} (pid ${process.object.pid})"
  }
}

policy "metadata_service_asked" {
  title       = "A program asked the cloud's metadata service"
  description = "It answers with the machine's own credentials. False positives: software of the cloud that is not on the list, and SDKs that are meant to use the machine's role."
  severity    = "medium"
  attack      = ["T1552.005"]

  on        = ["network.connect"]
  condition = in_cidr(destination.ip, ["169.254.169.254/32", "fd00:ec2::254/128"]) && !contains(list.cloud_agents, process.executable) && !contains(list.cloud_scripts, process.script)

  cooldown {
    period = "1h"
    by     = [process.executable]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable}, uid ${user.id}, asks ${destination.ip}"
  }
}
