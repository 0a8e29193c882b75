"""The process that holds one host of a lab: the first process of its PID namespace, and owner of its mounts and network.

Run as a file with only the standard library: `keeper.py migrator-lab ID NAME SPECIFICATION.json`. It makes the namespaces,
prints the process id of the keeper and leaves it behind. Standard input is the leash: as long as nothing was written to it, the
keeper ends when the other end is closed, and with it, by the kernel's hand, every process, mount and link of the host. A
letter `k` on it means: keep on when the other end is gone. So a lab whose builder is killed half way takes itself down.
"""
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x04000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_BIND, MNT_DETACH = 0x4000, 0x40000, 0x1000, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f'{what}: {os.strerror(code)}')


def _mount(source, target, kind=None, flags=0):
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _check(LIBC.mount(*arguments, ctypes.c_ulong(flags), None), f'mount {source} on {target}')


def _prepare_mounts(binds):
    """Cut this mount namespace off from the machine's, with its own /proc and /sys, and bind the host's directories."""
    _mount(None, '/', None, MS_REC | MS_PRIVATE)
    _mount('proc', '/proc', 'proc')
    _check(LIBC.umount2(b'/sys', MNT_DETACH), 'umount /sys')        # with the cgroups below it: libvirt is to find none
    _mount('sysfs', '/sys', 'sysfs')
    for source, target in binds:
        if not os.path.exists(target):
            os.makedirs(target)
        _mount(source, target, None, MS_BIND)


def _prepare_network(bridge):
    """Bring up loopback and, where `bridge` is given ({'name', 'mac', 'address'}), the bridge that joins the hosts."""
    def ip(*words):
        subprocess.run(['ip', *words], check=True, timeout=20, stdin=subprocess.DEVNULL)
    ip('link', 'set', 'lo', 'up')
    if bridge:
        ip('link', 'add', bridge['name'], 'address', bridge['mac'], 'type', 'bridge', 'forward_delay', '0')
        ip('address', 'add', bridge['address'], 'dev', bridge['name'])
        ip('link', 'set', bridge['name'], 'up')


def _collect():
    """Take note of the children that have ended, so that none stays a zombie: libvirt waits until a guest's process is gone."""
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return
        except ChildProcessError:                                    # there are none at the moment
            return


def _guard(leash):
    """Collect ended processes, which become children of this one, until the leash says to end."""
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno())
    watched = {wake.fileno(), leash}
    while True:
        _collect()
        ready = select.select(watched, [], [])[0]
        if wake.fileno() in ready:
            wake.recv(4096)
        if leash in ready:
            if os.read(leash, 1) != b'k':
                return
            watched.discard(leash)


def _first_process(specification, report):
    """Set the host up, tell the outer process by the pipe `report` ('' or what went wrong), and stay."""
    os.setsid()
    try:
        _prepare_mounts(specification['binds'])
        socket.sethostname(specification['hostname'])
        _prepare_network(specification['bridge'])
    except (OSError, subprocess.SubprocessError) as error:
        os.write(report, str(error).encode())
        return 1
    os.close(report)
    null = os.open('/dev/null', os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    _guard(0)
    return 0


def main(argv):
    """Make the namespaces and the keeper; print its process id once the host is ready."""
    with open(argv[4], encoding='utf-8') as file:
        specification = json.load(file)
    _check(LIBC.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNET), 'unshare')
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os._exit(_first_process(specification, write))
    os.close(write)
    trouble = os.read(read, 4096).decode()
    if trouble:
        print(trouble, file=sys.stderr)
        return 1
    print(pid, flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv))
