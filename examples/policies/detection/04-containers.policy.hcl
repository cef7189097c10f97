# How a container is left. Whether a process is in one, the agent knows of its
# control group.

list "runtime_sockets" {
  type   = "path"
  values = ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/crio/crio.sock"]
}

list "kernel_helpers" {
  type   = "string"
  values = ["kernel.core_pattern", "kernel.modprobe", "kernel.hotplug", "kernel.poweroff_cmd"]
}

policy "namespace_entered" {
  title       = "A process of a container entered other namespaces"
  description = "nsenter of the host is how a privileged container is left. False positives: agents of networks and storage that run privileged, such as CNI and CSI plugins."
  severity    = "high"
  attack      = ["T1611"]

  on        = ["process.namespace"]
  condition = namespace.operation == "setns" && macro.in_container

  cooldown {
    period = "5m"
    by     = [process.container_id, process.executable]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable} of container ${process.container_id} entered ${namespace.changed}"
  }
}

policy "device_mounted_in_container" {
  title       = "A container mounted a disk"
  description = "The disk of the host, mounted, is the host. False positives: privileged containers that manage storage."
  severity    = "high"
  attack      = ["T1611"]

  on        = ["file.mount"]
  condition = macro.in_container && startswith(mount.source, "/dev/")

  action "alert" {
    message = "${vm.name}: ${mount.source} at ${file.path} by ${process.executable} of container ${process.container_id}"
  }
}

policy "kernel_helper_set" {
  title       = "A container set a program that the kernel will run"
  description = "The kernel runs such programs as root of the host. False positives: privileged containers that collect crashes."
  severity    = "critical"
  attack      = ["T1611", "T1068"]

  on        = ["kernel.param_change"]
  condition = macro.in_container && contains(list.kernel_helpers, kernel.name)

  action "pause" {}
  action "alert" {
    message = "${vm.name}: ${kernel.name} = ${kernel.value} by ${process.executable} of container ${process.container_id}"
  }
}

policy "release_agent_written" {
  title       = "A release agent was written"
  description = "The kernel runs it as root of the host when a control group empties. The container mounts a hierarchy of its own for it, where it likes. False positives: none known; systemd sets it through other means."
  severity    = "critical"
  attack      = ["T1611"]

  on        = ["file.modify"]
  condition = file.name == "release_agent"

  action "pause" {}
  action "alert" {
    message = "${vm.name}: ${file.path} by ${process.executable} of container ${process.container_id}"
  }
}

policy "runtime_socket_reached" {
  title       = "A container talks to the container runtime"
  description = "Who talks to the runtime can start a container that is the host. False positives: tools that are meant to, such as CI runners and monitoring with the socket mounted."
  severity    = "high"
  attack      = ["T1610", "T1611"]

  on        = ["network.unix"]
  condition = macro.in_container && contains(list.runtime_sockets, network.path)

  cooldown {
    period = "1h"
    by     = [process.container_id]
  }

  action "alert" {
    message = "${vm.name}: ${process.executable} of container ${process.container_id} talks to ${network.path}"
  }
}
