#!/bin/sh
# First script of the test guest, run once by busybox init before anything else.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/virtio-ports
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t securityfs securityfs /sys/kernel/security
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
while read -r module; do
	insmod "$module" || echo "cannot load $module" >/dev/console
done </lib/provost-test/modules
ip link set lo up
hostname "$(cat /etc/hostname)"
. /lib/provost-test/lib.sh
link_ports
echo "PROVOST-GUEST-UP $(uname -r)" >/dev/console
