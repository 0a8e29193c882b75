"""The guests of a lab: Debian's cloud kernel and a busybox initrd that boots in two seconds without KVM.

What a guest does is chosen on the kernel's command line, which `command_line` writes. It counts `tick N UPTIME` on its serial
console in any case. A writer puts numbered records on /dev/vda and announces `wrote N UPTIME` when the disk has confirmed
record N; `read_records` in tests/lab/disk.py checks them afterwards.
"""
import gzip
import os
import pathlib
import re
import shutil
import stat

from tests.lab.errors import LabError

MODULES = ('virtio_pci', 'virtio_blk', 'virtio_balloon', 'evdev', 'button')
INIT = pathlib.Path(__file__).with_name('guest_init.sh')
MEMORY_MIB = 160                                 # what a guest needs, with some room for a workload


def kernel():
    """Path of the newest installed cloud kernel. LabError naming the package if there is none."""
    found = sorted(pathlib.Path('/boot').glob('vmlinuz-*cloud*'), key=lambda path: [int(n) for n in re.findall(r'\d+', path.name)])
    if not found:
        raise LabError('no /boot/vmlinuz-*cloud*: install the package linux-image-cloud-amd64')
    return found[-1]


def command_line(tick=0.1, write=None, fill=None, dirty=None, dirty_pause=0.0, poweroff=None, device=None):
    """Write the kernel's command line for a guest.

    tick: seconds between two ticks. write: seconds between two records on /dev/vda, or on `device` (vdb …), which may be attached later;
    None for no writer. fill: MiB of text put from 32 MiB on of /dev/vda at the start. dirty: MiB of memory rewritten all the time, with
    dirty_pause seconds after each round. poweroff: seconds after the start at which the guest powers itself off.
    """
    words = ['console=ttyS0', 'quiet', 'panic=-1', f'lab.tick={tick}']
    if write is not None or fill is not None:
        words.append('lab.disks=1')
    options = {'write': write, 'device': device, 'fill': fill, 'dirty': dirty, 'poweroff': poweroff,
               'dirty_pause': dirty_pause if dirty else None}
    return ' '.join(words + [f'lab.{name}={value}' for name, value in options.items() if value is not None])


def _module_files(release):
    """Files of MODULES with all that they need, in the order of loading; what is built into the kernel is not among them."""
    root = pathlib.Path('/lib/modules') / release
    needs, files = {}, {}
    for line in (root / 'modules.dep').read_text().splitlines():
        path, _, rest = line.partition(':')
        needs[path] = rest.split()
        files[pathlib.Path(path).name.partition('.')[0].replace('-', '_')] = path
    builtin = {pathlib.Path(line).stem.replace('-', '_') for line in (root / 'modules.builtin').read_text().splitlines()}
    ordered = []
    for name in MODULES:
        if name in builtin:
            continue
        if name not in files:
            raise LabError(f'the kernel {release} has no module {name}')
        for path in [*reversed(needs[files[name]]), files[name]]:
            if path not in ordered:
                ordered.append(path)
    return [root / path for path in ordered]


def _entry(name, mode, content=b''):
    """One file of an initrd: the newc format of cpio (kernel documentation, driver-api/early-userspace/buffer-format)."""
    numbers = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    head = b'070701' + b''.join(b'%08X' % number for number in numbers) + name.encode() + b'\0'
    return head + b'\0' * (-len(head) % 4) + content + b'\0' * (-len(content) % 4)


def build_initrd(path):
    """Write the guest's initrd to `path`. LabError naming the package when busybox is missing or not static."""
    busybox = pathlib.Path(shutil.which('busybox') or '/bin/busybox')
    if not busybox.exists() or b'ld-linux' in busybox.read_bytes()[:4096]:
        raise LabError('no static busybox: install the package busybox-static')
    modules = _module_files(kernel().name.partition('-')[2])
    archive = [_entry(name, stat.S_IFDIR | 0o755) for name in ('bin', 'modules')]
    archive.append(_entry('bin/busybox', stat.S_IFREG | 0o755, busybox.read_bytes()))
    archive.append(_entry('init', stat.S_IFREG | 0o755, INIT.read_bytes()))
    for module in modules:
        if module.suffix != '.ko':
            raise LabError(f'{module} is compressed, which the guest cannot load')
        archive.append(_entry(f'modules/{module.name}', stat.S_IFREG | 0o644, module.read_bytes()))
    archive.append(_entry('modules/order', stat.S_IFREG | 0o644, '\n'.join(module.name for module in modules).encode() + b'\n'))
    archive.append(_entry('TRAILER!!!', 0))
    new = pathlib.Path(f'{path}.new')
    new.write_bytes(gzip.compress(b''.join(archive), compresslevel=1, mtime=0))
    os.replace(new, path)


def domain_xml(identity, name, directory, initrd, cmdline, memory_mib=MEMORY_MIB, disks=()):
    """A libvirt domain as `instance create` makes it, for tests of the lab itself.

    directory: of the instance, where console.log is written. disks: (target, format, path) of local files or (target, 'nbd', URI).
    """
    parts = []
    for target, kind, source in disks:
        if kind == 'nbd':
            host, port, export = re.fullmatch(r'nbd://([^:/]+):(\d+)/(.+)', source).groups()
            where = f"<source protocol='nbd' name='{export}'><host name='{host}' port='{port}'/></source>"
        else:
            where = f"<source file='{source}'/>"
        parts.append(f"<disk type='{'network' if kind == 'nbd' else 'file'}' device='disk'>"
                     f"<driver name='qemu' type='{'raw' if kind == 'nbd' else kind}' cache='none'/>{where}"
                     f"<target dev='{target}' bus='virtio'/></disk>")
    return (f"<domain type='qemu'><name>{name}</name><uuid>{identity}</uuid><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>"
            f"<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel()}</kernel><initrd>{initrd}</initrd>"
            f"<cmdline>{cmdline}</cmdline></os><features><acpi/></features>"
            "<cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>"
            f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{''.join(parts)}"
            f"<serial type='file'><source path='{directory}/console.log' append='on'/></serial>"
            "<memballoon model='virtio'/></devices></domain>")
