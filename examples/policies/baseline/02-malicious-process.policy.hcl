# A name proves little, but the ones listed have no honest use on a server. A
# name is compared without its path and case, and so is the file that was asked
# for: a renamed process keeps the name of its executable.
policy "known_malicious_process" {
  title       = "Known malicious program started"
  description = "A list of names, paths and digests; put your own in. False positives: a program of your own with one of these names."
  severity    = "critical"
  attack      = ["T1204", "T1496"]
  mode        = "enforce"

  on = ["process.exec"]
  condition = (
    contains(list.malware_sha256, process.hash.sha256) ||
    contains(list.malware_paths, process.executable) ||
    contains_i(list.malware_names, process.name) ||
    contains_i(list.malware_names, basename(process.executable)) ||
    contains_i(list.malware_names, basename(process.filename))
  )

  # The pause comes first: everything else can wait.
  action "pause" {}
  action "alert" {
    message = "${vm.name} paused: ${process.executable} (${process.command_line}) was started by ${process.parent.executable}, uid ${user.id}"
  }
}
