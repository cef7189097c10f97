policy "anonymous_executable_memory" {
  title       = "Anonymous memory became executable in a service that never did so"
  description = "Injected code needs memory that it can write and run. False positives: just-in-time compilers that are not on the list, once each."
  severity    = "high"
  attack      = ["T1055", "T1620"]

  on        = ["memory.protect", "memory.map"]
  condition = memory.anonymous && memory.executable && memory.writable && !contains(["java", "node", "qemu-x86_64", "luajit"], process.name)

  first_seen {
    by      = [process.executable]
    history = "14d"
  }

  action "alert" {
    message = "${process.executable} mapped ${memory.size} bytes rwx"
  }
}
