"""Broker, databases and volumes of a lab, in the namespaces of svc so that hosts reach them and can be cut off from them."""
import json
import os
import pathlib
import shutil
import signal
import socket
import sys

from tests.lab import processes
from tests.lab.errors import LabError

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = {'rabbitmq': ('rabbitmqctl',), 'mariadb': ('mysqld', 'mysql'), 'postgresql': ('pg_config',)}
PACKAGES = {'rabbitmq': 'rabbitmq-server', 'mariadb': 'mariadb-server', 'postgresql': 'postgresql'}
FIRST_NBD_PORT = 10809
SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def find_program(name):
    """Path of a program, None if it is missing."""
    complete_path()
    return shutil.which(name)


def complete_path():
    """Add the system's directories to PATH where they are missing, as they are after `su`, for every program that the lab runs."""
    here = os.environ.get('PATH', '').split(':')
    os.environ['PATH'] = ':'.join([*here, *(folder for folder in SYSTEM_PATH.split(':') if folder not in here)])


def wipe(folder):
    """Remove everything in `folder`."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _folder(lab, kind):
    """Where a service keeps its files: outside the lab's folder, which its user may not be allowed to enter. The path is short, too."""
    return lab.record.runtime / 'services' / kind


def _daemon(lab, kind):
    argv = [sys.executable, '-m', 'tests.lab.serve', kind, lab.svc.ip, _folder(lab, kind)]
    return processes.Daemon(kind, argv, lab.folder / 'log' / f'{kind}.log', lab.folder / 'services', lab.svc,
                            env={'PYTHONPATH': str(ROOT), 'PATH': f'{pathlib.Path(sys.executable).parent}:{SYSTEM_PATH}'})


def start(lab, kind):
    """Start a service in svc unless it runs; returns its URL, which is recorded in lab.json. LabError with its log if it fails.

    The URL of a database is good on this machine and in svc; that of the broker everywhere in the lab too.
    """
    if kind not in PACKAGES:
        raise LabError(f'no service {kind}, only {", ".join(PACKAGES)}')
    missing = [program for program in PROGRAMS[kind] if not find_program(program)]
    if missing:
        raise LabError(f'{kind} is not installed on this machine ({", ".join(missing)} not found): apt-get install {PACKAGES[kind]}')
    known = lab.record.read().get('services', {})
    if kind in known and running(lab, kind):
        return known[kind]
    stop(lab, kind)                                                  # what is left of one that crashed
    lab.record.step(kind)
    _folder(lab, kind).mkdir(parents=True, exist_ok=True)
    daemon = _daemon(lab, kind).start()
    daemon.wait_for('{"url":', timeout=90)
    line = next(line for line in daemon.output().splitlines() if line.startswith('{"url":'))
    lab.record.write(services={**known, kind: json.loads(line)['url']})
    return lab.record.data['services'][kind]


def _recorded(path):
    """Process id in the record of a Daemon if that very process still runs, else None."""
    entry = json.loads(path.read_text()) if path.exists() else {}
    return entry['pid'] if entry and processes.start_time(entry['pid']) == entry['started'] != '' else None


def running(lab, kind):
    """Whether the service runs."""
    return _recorded(lab.folder / 'services' / f'{kind}.json') is not None


def stop(lab, kind):
    """End a service at once, as a crash does, with all of its processes and data. Harmless when it does not run."""
    entry = lab.folder / 'services' / f'{kind}.json'
    pid = _recorded(entry)
    family = [pid, *processes.descendants(pid)] if pid else []
    for one in family:
        processes.send(one, signal.SIGKILL)
    processes.wait_until(lambda: not any(processes.alive(one) for one in family), 20, f'end of {kind}')
    entry.unlink(missing_ok=True)
    known = lab.record.read().get('services', {})
    if kind in known:                                                # its URL leads nowhere from now
        lab.record.write(services={name: url for name, url in known.items() if name != kind})
    if _folder(lab, kind).exists():
        shutil.rmtree(_folder(lab, kind))


# --- volumes ---

def export_nbd(lab, name, size_mib):
    """Make a raw volume and serve it with qemu-nbd from svc; returns nbd://IP:PORT/NAME. The volume is volumes/NAME.raw."""
    folder = lab.folder / 'volumes'
    folder.mkdir(exist_ok=True)
    image = folder / f'{name}.raw'
    with open(image, 'ab') as file:
        file.truncate(size_mib << 20)
    port = FIRST_NBD_PORT + len(list(folder.glob('*.json')))
    argv = ['qemu-nbd', '--persistent', '--shared=8', '--cache=writethrough', '--format=raw', f'--bind={lab.svc.ip}', f'--port={port}',
            f'--export-name={name}', image]
    daemon = processes.Daemon(f'nbd-{name}', argv, lab.folder / 'log' / f'nbd-{name}.log', folder, lab.svc).start()

    def listens():
        if not daemon.running():
            raise LabError(f'qemu-nbd for {name} ended: {daemon.output()[-1000:]}')
        try:
            with socket.create_connection((lab.svc.ip, port), timeout=2):
                return True
        except OSError:
            return False
    processes.wait_until(listens, 15, f'NBD export of {name}')
    return f'nbd://{lab.svc.ip}:{port}/{name}'


def stop_exports(lab):
    """End every NBD export and remove the volumes."""
    folder = lab.folder / 'volumes'
    for entry in sorted(folder.glob('*.json')) if folder.exists() else []:
        pid = _recorded(entry)
        if pid:
            processes.send(pid, signal.SIGKILL)
            processes.wait_until(lambda pid=pid: not processes.alive(pid), 10, f'end of {entry.stem}')
    if folder.exists():
        wipe(folder)
