test "nsenter in a container" {
  policy = "namespace_entered"

  event "process.namespace" {
    process   = { executable = "/usr/bin/nsenter", container_id = "0123456789ab" }
    namespace = { operation = "setns", changed = ["mount", "pid"] }
  }

  expect {
    contains = ["container 0123456789ab entered mount, pid"]
  }
}

test "nsenter of the host, and a container that begins" {
  policy = "namespace_entered"

  event "process.namespace" {
    process   = { executable = "/usr/bin/nsenter" }
    namespace = { operation = "setns", changed = ["network"] }
  }

  event "process.namespace" {
    process   = { executable = "/usr/bin/runc", container_id = "0123456789ab" }
    namespace = { operation = "unshare", changed = ["mount"] }
  }

  expect {
    matched = false
  }
}

test "a disk is mounted" {
  policy = "device_mounted_in_container"

  event "file.mount" {
    process = { container_id = "0123456789ab" }
    mount   = { operation = "mount", source = "/dev/vda1", type = "ext4" }
    file    = { path = "/mnt" }
  }

  expect {
    matched = true
  }
}

test "a tmpfs, and the host's own disk" {
  policy = "device_mounted_in_container"

  event "file.mount" {
    process = { container_id = "0123456789ab" }
    mount   = { operation = "mount", source = "tmpfs", type = "tmpfs" }
  }

  event "file.mount" {
    process = { executable = "/usr/bin/mount" }
    mount   = { operation = "mount", source = "/dev/vdb1" }
  }

  expect {
    matched = false
  }
}

test "core_pattern is set" {
  policy = "kernel_helper_set"

  event "kernel.param_change" {
    process = { container_id = "0123456789ab" }
    kernel  = { name = "kernel.core_pattern", value = "|/tmp/x" }
  }

  expect {
    actions = ["pause", "alert"]
  }
}

test "another parameter, and the host's own" {
  policy = "kernel_helper_set"

  event "kernel.param_change" {
    process = { container_id = "0123456789ab" }
    kernel  = { name = "net.ipv4.ip_forward", value = "1" }
  }

  event "kernel.param_change" {
    process = { executable = "/usr/lib/systemd/systemd-sysctl" }
    kernel  = { name = "kernel.core_pattern", value = "core" }
  }

  expect {
    matched = false
  }
}

test "a release agent" {
  policy = "release_agent_written"

  event "file.modify" {
    file = { path = "/sys/fs/cgroup/rdma/release_agent" }
  }

  expect {
    actions = ["pause", "alert"]
  }
}

test "a release agent of a hierarchy that a container mounted itself" {
  policy = "release_agent_written"

  event "file.modify" {
    file = { path = "/tmp/cgrp/release_agent" }
  }

  expect {
    matched = true
  }
}

test "another control" {
  policy = "release_agent_written"

  event "file.modify" {
    file = { path = "/sys/fs/cgroup/x/cgroup.procs" }
  }

  expect {
    matched = false
  }
}

test "docker's socket" {
  policy = "runtime_socket_reached"

  event "network.unix" {
    process = { executable = "/usr/bin/curl", container_id = "0123456789ab" }
    network = { path = "/var/run/docker.sock" }
  }

  expect {
    matched = true
  }
}

test "another socket, and docker itself" {
  policy = "runtime_socket_reached"

  event "network.unix" {
    process = { container_id = "0123456789ab" }
    network = { path = "/run/postgresql/.s.PGSQL.5432" }
  }

  event "network.unix" {
    process = { executable = "/usr/bin/docker" }
    network = { path = "/var/run/docker.sock" }
  }

  expect {
    matched = false
  }
}
