policy "known_malicious_process" {
  title       = "Known malicious program started"
  description = "Evidence first, then the network, then the processors; a second person lets the domain go. False positives: a program of your own with one of these names, and lists of digests that are not yours."
  severity    = "critical"
  mode        = "enforce"
  attack      = ["T1204", "T1496"]

  on        = ["process.exec"]
  condition = contains(list.malware_sha256, process.hash.sha256) || contains(list.malware_names, lower(process.name))

  action "snapshot" {
    memory = true
    label  = "evidence"
  }
  action "quarantine" {
    network = "isolate"
    pause   = true
    release = "manual"
  }
  action "alert" {
    message = "${process.executable} (${process.hash.sha256}) started on ${vm.name}: VM quarantined"
  }

  # Three domains an hour are an incident; thirty are a mistake in a list.
  limit {
    max   = 3
    per   = "1h"
    scope = "host"
    then  = "alert"
  }
}
