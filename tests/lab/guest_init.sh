#!/bin/busybox sh
# First program of a lab's guest. Counts on the serial console, and does what the kernel's command line asks for (tests/lab/guest.py).
/bin/busybox mkdir -p /proc /sys /dev /tmp /etc/acpi/PWRF /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
option() { sed -n "s/.*\\<lab\\.$1=\\([^ ]*\\).*/\\1/p" /proc/cmdline; }
uptime() { cut -d' ' -f1 /proc/uptime; }
for module in $(cat /modules/order); do insmod "/modules/$module"; done

# The power button, which is how libvirt asks a guest to shut down.
printf '#!/bin/busybox sh\necho "guest: power button"\npoweroff -f\n' > /etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
(while [ ! -e /dev/input/event0 ]; do sleep 0.2; done; acpid -f -l /dev/console >/dev/null 2>&1) &

tries=0
while [ -n "$(option disks)" ] && [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done

# The disk that is written to; one that is attached later is waited for, one that is taken away is waited for again.
device=/dev/$(option device)
[ "$device" = /dev/ ] && device=/dev/vda

# Record N lies in sector N; sector 0 names the last record that is known to be on the disk. A record is announced once it is safe. When
# the disk is taken away in between, dd makes a file of that name: then nothing was written.
put() {
    [ -b "$device" ] && printf '%-511s\n' "$1" | dd of="$device" bs=512 seek="$2" conv=notrunc,fsync 2>/dev/null && [ -b "$device" ]
}
writer() {
    while [ ! -b "$device" ]; do sleep 0.1; done
    next=$(dd if="$device" bs=512 count=1 2>/dev/null | sed -n 's/^head \([0-9]*\) .*/\1/p')
    next=$((${next:-0} + 1))
    pause=$(option write)
    while true; do
        if put "record $next $(uptime)" "$next" && put "head $next " 0; then
            echo "wrote $next $(uptime)"
        else                                     # also when the power goes while it writes: nothing is announced then
            echo "guest: write error at $next"
            sleep 1
            continue
        fi
        next=$((next + 1))
        sleep "$pause"
    done
}

fill=$(option fill)
if [ -n "$fill" ]; then
    yes "fill of the lab" | dd of=/dev/vda bs=1M count="$fill" seek=32 iflag=fullblock conv=notrunc,fsync 2>/dev/null && echo "filled $fill"
fi
[ -n "$(option write)" ] && writer &

dirty=$(option dirty)
if [ -n "$dirty" ]; then
    mount -t tmpfs -o size=$((dirty + 1))m dirty /tmp
    (round=0; while true; do
        round=$((round + 1))
        yes "round $round" | dd of=/tmp/pages bs=1M count="$dirty" iflag=fullblock conv=notrunc 2>/dev/null
        sleep "$(option dirty_pause)"
    done) &
fi

off=$(option poweroff)
[ -n "$off" ] && (sleep "$off"; echo "guest: powers off"; poweroff -f) &

pause=$(option tick)
tick=0
while true; do echo "tick $tick $(uptime)"; tick=$((tick + 1)); sleep "${pause:-0.1}"; done
