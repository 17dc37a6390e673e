#!/bin/bash
# Boots a throwaway systemd; systemd_lab.py runs it as root within `unshare --mount --net --uts --ipc`.
#   $1 an empty folder to become the root, $2 an empty folder to mount cgroup2 on, $3 the name of the lab's cgroup,
#   $4 a folder of files laid over the root, and then SOURCE:TARGET folders to be seen read-only.
# It lives until its standard input ends, so it goes with the test run however that dies.  Mounts and processes exist
# only in private namespaces; the cgroup is removed at the end.
set -eu
root=$1 cgroups=$2 name=$3 overlay=$4
shift 4

mount --make-rprivate /
mount -t cgroup2 cgroup2 "$cgroups"
mkdir "$cgroups/$name"

booted=
end() {
    if [ -n "$booted" ]; then
        # With its first process the whole lab goes; `wait` returns when the kernel has taken it away.
        init=$(cat "/proc/$booted/task/$booted/children") || true
        kill -KILL ${init:-"$booted"} || true
        wait || true
    fi
    echo $$ >"$cgroups/cgroup.procs"
    while ! find "$cgroups/$name" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.01; done
}
trap end EXIT
echo $$ >"$cgroups/$name/cgroup.procs" # where the lab's own hierarchy begins

mount -t tmpfs -o mode=755 lab "$root"
cp -a "$overlay/." "$root"
chmod -R go+rX "$root" # whatever the umask of the test run
cd "$root"
mkdir -p dev proc sys run tmp var/lib etc usr old
mount --rbind /usr usr
mount -o remount,bind,ro usr
for link in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$link" ]; then
        cp -a "/$link" .
    elif [ -d "/$link" ]; then
        mkdir "$link" && mount --rbind "/$link" "$link"
    fi
done
for file in passwd group nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d alternatives; do
    if [ -e "/etc/$file" ]; then cp -a "/etc/$file" etc/; fi
done

# Of the system's own units only the journal: others load modules and set kernel parameters, which no namespace holds.
units=/usr/lib/systemd/system
mkdir -p units
for unit in sysinit.target basic.target sockets.target shutdown.target umount.target network-online.target \
    systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    if [ -e "$units/$unit" ]; then cp "$units/$unit" units/; fi
done
mount --bind units ".$units"
mkdir none
mount --bind none usr/lib/systemd/system-generators

for pair in "$@"; do
    mkdir -p "${pair#*:}"
    mount --rbind "${pair%%:*}" "${pair#*:}"
    mount -o remount,bind,ro "${pair#*:}"
done

# The device nodes that PrivateDevices= passes on; without a pts it fails (226).
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do cp -a "/dev/$node" dev/; done
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=755 run run

# container= tells systemd to leave the clock and the kernel alone.
unshare --mount --cgroup --pid --fork --kill-child bash -eu -c '
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 cgroups sys/fs/cgroup
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    pivot_root . old
    umount -l /old
    mount --make-rshared /
    exec env -i container=lab PATH=/usr/bin:/usr/sbin:/bin:/sbin /usr/lib/systemd/systemd \
        --system --unit=lab.target --log-target=journal --show-status=0
' lab </dev/null &
booted=$!
read -r _ || true
