# Shared by the scripts of the test guest. The guest's own scripts fork as little as they can:
# every process they start is an event in the history under test.

# nap SECONDS waits without starting a process (reading a pipe nobody writes to).
[ -p /run/never ] || mkfifo /run/never
exec 9<>/run/never
nap() { read -r -t "$1" _nap <&9; }

# link_ports gives each virtio-serial port the name which udev would give it.
link_ports() {
	for _n in /sys/class/virtio-ports/*/name; do
		[ -e "$_n" ] || continue
		read -r _name <"$_n" || continue
		_dev=${_n#/sys/class/virtio-ports/}
		_dev=/dev/${_dev%/name}
		[ -e "/dev/virtio-ports/$_name" ] || ln -sf "$_dev" "/dev/virtio-ports/$_name"
	done
}
