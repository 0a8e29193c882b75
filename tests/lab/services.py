"""Broker, databases and volumes of a lab, in the namespaces of svc so that hosts reach them and can be cut off from them."""
import json
import pathlib
import shutil
import socket
import sys

from tests.lab import processes
from tests.lab.errors import LabError

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTS = {'rabbitmq': 5672, 'mariadb': 3306, 'postgresql': 5432}
FIRST_NBD_PORT = 10809
SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def find_program(name):
    """Path of a program, looked for in the system's directories too, whatever PATH says; None if it is missing."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


def wipe(folder):
    """Remove everything in `folder`."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _daemon(lab, kind):
    log = lab.folder / 'log' / f'{kind}.log'
    argv = [sys.executable, '-m', 'tests.lab.serve', kind, lab.svc.ip, PORTS[kind], lab.folder / 'services' / kind]
    return processes.Daemon(kind, argv, log, lab.folder / 'services', lab.svc,
                            env={'PYTHONPATH': str(ROOT), 'PATH': f'{pathlib.Path(sys.executable).parent}:{SYSTEM_PATH}'})


def start(lab, kind):
    """Start a service in svc unless it runs; returns its URL, which is recorded in lab.json. LabError with its log if it fails."""
    if kind not in PORTS:
        raise LabError(f'no service {kind}, only {", ".join(PORTS)}')
    known = lab.record.read().get('services', {})
    if kind in known and _answers(lab, kind):
        return known[kind]
    lab.record.step(kind)
    folder = lab.folder / 'services' / kind
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    daemon = _daemon(lab, kind).start()
    daemon.wait_for('{"url":', timeout=90)
    line = next(line for line in daemon.output().splitlines() if line.startswith('{"url":'))
    url = json.loads(line)['url']
    lab.record.write(services={**known, kind: url})
    return url


def _answers(lab, kind):
    try:
        with socket.create_connection((lab.svc.ip, PORTS[kind]), timeout=2):
            return True
    except OSError:
        return False


def stop(lab, kind):
    """End a service at once, as a crash does, with all of its processes. Its data stay, but `start` begins with new ones."""
    entry = lab.folder / 'services' / f'{kind}.json'
    if entry.exists():
        pid = json.loads(entry.read_text())['pid']
        family = [pid, *_descendants(pid)]
        for one in family:
            processes.send(one, 9)
        processes.wait_until(lambda: not any(processes.alive(one) for one in family), 20, f'end of {kind}')
        entry.unlink()


def _descendants(pid):
    found = []
    for child in processes.children(pid):
        found += [child, *_descendants(child)]
    return found


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
        pid = json.loads(entry.read_text())['pid']
        processes.send(pid, 9)
        processes.wait_until(lambda pid=pid: not processes.alive(pid), 10, f'end of {entry.stem}')
    if folder.exists():
        wipe(folder)
