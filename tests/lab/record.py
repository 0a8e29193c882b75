"""What is known of a lab beyond the life of the process that built it: its record, its lock, and how to find what it made.

The record, `lab.json` in the lab's folder, is written before each thing is made. Next to it stands a note in /run, so that labs
whose builder was killed are found from anywhere: a lab is dead when nobody holds its lock and it was not left up on purpose.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal

from tests.lab import network, processes
from tests.lab.errors import LabError

#: Labs of one registry know of one another, and clean up after those whose owner is gone. A test of that has one of its own.
REGISTRY = pathlib.Path(os.environ.get('MIGRATOR_LAB_REGISTRY', '/run/migrator-lab'))
MARK = 'migrator-lab'                            # first argument of every keeper
CONTENTS = ('hosts', 'shared', 'instances', 'etc', 'guest', 'log', 'daemons', 'services', 'volumes', 'state', 'lab.json.new',
            'lab.json')


def lab_id(folder):
    """Six hexadecimal digits that stand for the folder's path: the same each time, and short enough for names of links."""
    return hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:6]


def keepers(identity):
    """Living keepers of a lab by their host's name, found by their command line; several of one name may live after a crash."""
    found = {}
    for pid in processes.all_pids():
        words = processes.arguments(pid)
        if MARK in words[:6]:
            rest = words[words.index(MARK) + 1:]
            if len(rest) == 3 and rest[0] == identity and pid != os.getpid() and processes.alive(pid):
                found.setdefault(rest[1], []).append(pid)
    return found


class Lock:
    """The lock of a lab, held by whoever builds it, takes it down, or owns it for the length of a test process."""

    def __init__(self, identity):
        """Name the lock of one lab; '' is the lock over the choice of a subnet, common to all: the registry's folder itself."""
        self.path = REGISTRY / f'{identity}.lock' if identity else REGISTRY
        self._fd = None

    def acquire(self, wait=False):
        """Take the lock; False if another process holds it (with `wait`, wait for it instead)."""
        while True:
            REGISTRY.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                fd = os.open(self.path, os.O_CLOEXEC | (os.O_RDONLY if self.path == REGISTRY else os.O_RDWR | os.O_CREAT), 0o600)
            except FileNotFoundError:
                continue                                             # the last lab's end removed the registry just now
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(fd)
                return False
            if self.path.exists() and os.fstat(fd).st_ino == self.path.stat().st_ino:
                self._fd = fd
                return True
            os.close(fd)                                             # the one before us removed the file; take the new one

    @property
    def held(self):
        """Whether this object holds the lock."""
        return self._fd is not None

    def release(self, remove=False):
        """Let go; with `remove` the lock's file goes too. Not held is fine."""
        if self._fd is not None:
            if remove:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None
            if remove:
                _remove_registry()

    @contextlib.contextmanager
    def hold(self):
        """Hold the lock, waiting for it, during a with-block."""
        self.acquire(wait=True)
        try:
            yield
        finally:
            self.release()


def _remove_registry():
    """Remove the registry's folder with its last lab."""
    everything = Lock('')
    if everything.acquire():
        if not os.listdir(REGISTRY):
            REGISTRY.rmdir()
        everything.release()


class Record:
    """What a lab has made or was about to make, in `lab.json`, together with its note in /run."""

    def __init__(self, folder):
        """Name the lab in `folder`; nothing is read or written."""
        self.folder = pathlib.Path(os.path.realpath(folder))
        self.id = lab_id(self.folder)
        self.path = self.folder / 'lab.json'
        self.note = REGISTRY / f'{self.id}.folder'
        self.runtime = REGISTRY / self.id
        self.data = {}

    def read(self):
        """Read the record; {} if there is none, or one that was cut off in the writing of its first line."""
        try:
            self.data = json.loads(self.path.read_text())
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            self.data = {}
        return self.data

    def begin(self, **facts):
        """Start the record of a new lab: the note in /run first, then the folder. LabError if the folder holds other things."""
        if self.folder.exists() and (not self.folder.is_dir() or os.listdir(self.folder)):
            raise LabError(f"{self.folder} holds files that are not a lab's; name an empty folder or a new one")
        REGISTRY.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.note.write_text(str(self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runtime.mkdir(exist_ok=True)
        self.data = {'id': self.id, 'folder': str(self.folder), 'state': 'building', 'keep': False, 'steps': [], **facts}
        self.write()

    def step(self, what):
        """Write down, before it is done, what comes next."""
        self.data['steps'].append(what)
        self.write()

    def write(self, **facts):
        """Write the record with `facts` added, whole or not at all."""
        self.data.update(facts)
        new = self.path.with_name('lab.json.new')
        new.write_text(json.dumps(self.data, indent=1))
        os.replace(new, self.path)

    def standing(self):
        """Whether the lab was left up on purpose and every host of it still has its keeper."""
        self.read()
        alive = keepers(self.id)
        return bool(self.data.get('state') == 'up' and self.data['keep'] and alive.keys() >= {'svc', *self.data['hosts']})

    def erase(self):
        """End every process of the lab and remove all that it made, whatever its record says. Call with the lab's lock held."""
        for pids in keepers(self.id).values():
            for pid in pids:
                processes.send(pid, signal.SIGKILL)
        processes.wait_until(lambda: not keepers(self.id), 30, "end of the lab's processes")
        network.remove_outside_link(self.id)
        processes.wait_until(lambda: not network.link_exists(network.outside_link(self.id)), 20, "end of the lab's link")
        self._remove_files()

    def _owns_folder(self):
        """Whether the folder is this lab's: nothing is ever removed from another one, whatever its files are called."""
        if self.read().get('id') == self.id:
            return True
        return self.note.exists() and self.folder.is_dir() and set(os.listdir(self.folder)) <= {'lab.json.new'}

    def _remove_files(self):
        """Remove the files, lab.json after all others in the folder and the note last, so that a second try finds what is left."""
        if self._owns_folder():
            for name in CONTENTS:
                path = self.folder / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            if not os.listdir(self.folder):
                self.folder.rmdir()
        if self.runtime.exists():
            shutil.rmtree(self.runtime)
        self.note.unlink(missing_ok=True)


def registered():
    """Folders of all labs that have a note on this machine."""
    folders = []
    for note in sorted(REGISTRY.glob('*.folder')) if REGISTRY.exists() else []:
        try:
            folders.append(pathlib.Path(note.read_text()))
        except FileNotFoundError:
            continue                                                 # taken down while we looked
    return folders


def clean_dead(apart_from=None):
    """Erase every lab whose owner is gone and that was not left up on purpose; returns their folders."""
    erased = []
    for folder in registered():
        record = Record(folder)
        lock = Lock(record.id)
        if record.id == apart_from or not lock.acquire():
            continue
        try:
            if not record.standing():
                record.erase()
                erased.append(str(folder))
        finally:
            standing = record.note.exists()
            lock.release(remove=not standing)
    return erased


def taken_subnets(apart_from):
    """Subnets that the other labs of this machine have chosen."""
    records = [Record(folder) for folder in registered()]
    return [record.read()['subnet'] for record in records if record.id != apart_from and record.read().get('subnet')]
