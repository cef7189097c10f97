policy "download_then_execute" {
  title       = "A file was downloaded to a temporary directory, made executable and started"
  description = "Three steps in order, held together by the file. False positives: installers that unpack themselves, and builds."
  severity    = "high"
  mode        = "enforce"
  attack      = ["T1105", "T1222.002", "T1059"]

  sequence {
    within = "10m"

    step "download" {
      on        = ["file.create"]
      condition = contains(["curl", "wget", "python3", "scp"], process.name) && under_any(file.path, ["/tmp", "/var/tmp", "/dev/shm"])
    }
    step "chmod" {
      on        = ["file.chmod"]
      condition = file.path == step.download.file.path && file.mode_executable
    }
    step "run" {
      on        = ["process.exec"]
      condition = process.executable == step.download.file.path
    }
    reset {
      on        = ["file.delete"]
      condition = file.path == step.download.file.path
    }
  }

  action "snapshot" {
    memory = true
  }
  action "alert" {
    message = "${step.download.process.name} wrote ${step.download.file.path}, then it was executed by ${process.parent.executable}"
  }
}
