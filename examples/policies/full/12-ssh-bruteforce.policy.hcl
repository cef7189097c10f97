policy "ssh_bruteforce_success" {
  title       = "Many failed logins, then a success from the same address"
  description = "Guessing that came to an end. False positives: users who forget, behind one address of an office."
  severity    = "high"
  mode        = "enforce"
  attack      = ["T1110"]

  sequence {
    by     = [source.ip]
    within = "15m"

    step "failures" {
      on        = ["auth.login"]
      condition = event.outcome == "failure" && startswith(process.name, "sshd")
      count     = 10
    }
    step "success" {
      on        = ["auth.login"]
      condition = event.outcome == "success" && startswith(process.name, "sshd")
    }
  }

  action "alert" {
    message = "login of ${user.name} from ${source.ip} after ${step.failures.count} failures"
  }
}
