"""The directories in which guests' disks lie: whose they are, what is in them, making and removing disks.

Every path that came over the wire is checked here against the configured directories, with symbolic links resolved, before anything
is made or removed. A guest's own directory is <storage directory>/<uuid>; the console's log lies in the one under instances_path.
"""
import contextlib
import fcntl
import os
import re
import stat
import struct

from migrator import exceptions, programs
from migrator.compute.drivers.libvirt import disk_format, markers
from migrator.rpc import facts, traces

CONSOLE = 'console.log'
_CONSOLE_LOGS = re.compile(r'console\.log(\.[0-9]+)?\Z')   # virtlogd rotates it
_DISK = re.compile(r'[a-z]{2,4}[0-9]{0,3}\.(qcow2|raw)\Z')
_FORMATS = ('qcow2', 'raw')
_MAX_CHAIN = 16
_QEMU_IMG_SECONDS = 120
#: QEMU locks single bytes of an image that it has open, all of them in this range (block/file-posix.c: 100 and 200, plus the permission).
_LOCKED_FROM, _LOCKED_BYTES = 100, 200
_F_OFD_GETLK = 36
_FLOCK = struct.Struct('hhqqi4x')


def check_uuid(text):
    """Give back a valid uuid; InvalidRequest otherwise. It becomes a part of paths, so it is never taken on trust."""
    if not facts.UUID.match(text):
        raise exceptions.InvalidRequest(f'{text!r:.80} is not a uuid')
    return text


class Storage:
    """The storage directories of one host.

    instances_path and extra: absolute paths; state_path: host-local directory for what must not lie on shared storage; host: migrator's
    name of this host.
    """

    def __init__(self, instances_path, extra, state_path, host):
        self.instances_path = _clean(instances_path)
        self.directories = tuple(dict.fromkeys([self.instances_path, *(_clean(d) for d in extra)]))
        self.incoming_path = os.path.join(os.path.abspath(state_path), 'incoming')   # notes: guests that are expected here
        self.held_path = os.path.join(os.path.abspath(state_path), 'held')           # notes: guests that were held after a hand-over
        self.host = host

    def start(self):
        """Make missing directories and identities. Raises DriverError in words."""
        for directory in self.directories:
            markers.make_identity(directory)
        for directory in (self.incoming_path, self.held_path):
            try:
                os.makedirs(directory, mode=0o755, exist_ok=True)
            except OSError as error:
                raise exceptions.DriverError(f'{directory} cannot be made: {error.strerror}') from None
            # Nobody else writes notes of this host, and this process has not begun to.
            for path in temporaries(directory):
                markers.remove(path)

    # --- what is there ---

    def identities(self):
        """Give {directory: identity} of those that can be read now."""
        found = {directory: markers.identity(directory) for directory in self.directories}
        return {directory: identity for directory, identity in found.items() if identity}

    def free(self):
        """Give {directory: bytes free for disks}."""
        found = {}
        for directory in self.identities():
            with contextlib.suppress(OSError):  # it went away just now: not named, so nothing is put there
                figures = os.statvfs(directory)
                found[directory] = figures.f_bavail * figures.f_frsize
        return found

    def directory_of(self, path):
        """Give the configured directory in which `path` really lies, '' when in none. The deepest wins where they are nested."""
        real = os.path.realpath(path)
        inside = [d for d in self.directories if real.startswith(os.path.realpath(d).rstrip('/') + '/')]
        return max(inside, key=len, default='')

    def guest_directory(self, directory, uuid):
        """Give the path of a guest's own directory."""
        return os.path.join(directory, check_uuid(uuid))

    def console(self, uuid):
        """Give the path of a guest's console log."""
        return os.path.join(self.guest_directory(self.instances_path, uuid), CONSOLE)

    def chain_problem(self, path):
        """Say in words why a backing file and what it is backed by in turn cannot be used, '' when it can.

        Each must be a readable regular file in a configured directory: a guest that wrote a header into its disk must not get
        at other files of the host through it.
        """
        for _ in range(_MAX_CHAIN):
            if not path.startswith('/') or not self.directory_of(path):
                return f'the backing file {path} is in none of the storage directories'
            if not os.path.isfile(path) or not os.access(path, os.R_OK):
                return f'the backing file {path} is not there or cannot be read'
            if markers.read(os.path.join(os.path.dirname(path), markers.CREATED)):
                return f'the backing file {path} is the disk of another guest, with which it would go'
            path = disk_format.read(path).backing
            if not path:
                return ''
        return f'the chain of backing files of {path} is too long'

    def traces(self):
        """Give the directories of guests, their markers, and this host's notes as ComputeDriver.audit does. Raises OSError."""
        found = []
        for directory in self.directories:
            identity = markers.identity(directory)
            for name in sorted(os.listdir(directory)):
                found += self._traces_of(directory, name, identity)
        for folder in (self.incoming_path, self.held_path):
            found += [traces.Trace('note', name, os.path.join(folder, name), migration_id=markers.read(os.path.join(folder, name)))
                      for name in sorted(os.listdir(folder)) if facts.UUID.match(name)]
            found += [_temporary(path) for path in temporaries(folder)]
        # A temporary file that is gone by now was one that somebody was at work on.
        return tuple(t for t in found if t.kind != 'temporary' or os.path.lexists(t.what))

    @staticmethod
    def _traces_of(directory, name, identity):
        path = os.path.join(directory, name)
        if facts.UUID.match(name):
            yield traces.Trace('file', name, path, migration_id=markers.read(os.path.join(path, markers.MIGRATION)),
                               host=markers.read(os.path.join(path, markers.CREATED)), storage=identity)
            yield from (_temporary(file, name, identity) for file in temporaries(path))
        elif name.endswith(markers.MIGRATION):
            yield traces.Trace('file', '', path, migration_id=markers.read(path), storage=identity)
        elif name.startswith('.migrator-new-'):     # a directory that was being made: .migrator-new-UUID-TEXT
            yield traces.Trace('file', name[14:50], path, storage=identity)
        elif name.startswith(markers.TEMPORARY):
            yield _temporary(path, storage=identity)

    # --- single disks ---

    def check_new_disk(self, path, form, size, backing):
        """Say InvalidRequest or DriverError in words if a disk cannot be made like this; no side effects. size in bytes."""
        if form not in _FORMATS:
            raise exceptions.InvalidRequest(f'disks of format {form!r:.40} cannot be made, only {" and ".join(_FORMATS)}')
        if not self.directory_of(path):
            raise exceptions.InvalidRequest(f'{path} is in none of the storage directories of {self.host}')
        if not 0 < size <= facts.MAX_BYTES:
            raise exceptions.InvalidRequest(f'{path}: {size} bytes is not a size for a disk')
        if backing and form != 'qcow2':
            raise exceptions.InvalidRequest(f'{path}: only a qcow2 disk can have a backing file')
        problem = backing and self.chain_problem(backing)
        if problem:
            raise exceptions.DriverError(problem)

    def make_disk(self, path, form, size, backing='', backing_format=''):
        """Make a disk image that appears whole or not at all; one that is there is left as it is. Returns True if it was made."""
        self.check_new_disk(path, form, size, backing)
        if os.path.lexists(path):
            return False
        temporary = os.path.join(os.path.dirname(path), f'{markers.TEMPORARY}{os.path.basename(path)}')
        markers.remove(temporary)
        command = ['qemu-img', 'create', '-q', '-f', form]
        if backing:
            command += ['-b', backing, '-F', backing_format or disk_format.read(backing).format]
        try:
            programs.run([*command, temporary, str(size)], _QEMU_IMG_SECONDS)
            os.link(temporary, path)
        except OSError as error:
            raise exceptions.DriverError(f'the disk {path} cannot be made: {error.strerror}') from None
        finally:
            markers.remove(temporary)
        return True

    def check_unused(self, paths):
        """PreconditionFailed if a process of this host has one of the files open, or an emulator of any host has it locked.

        Compares inodes, as other mount namespaces have other paths. On shared storage the locks are all that shows another host's emulator.
        """
        wanted = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                wanted[status.st_dev, status.st_ino] = path
        user = _opener(wanted) if wanted else None
        if user:
            process, path = user
            raise exceptions.PreconditionFailed(f'{path} is in use by process {process} ({_name_of(process)})')
        for path in wanted.values():
            if locked(path):
                raise exceptions.PreconditionFailed(f'{path} is in use by an emulator that does not run on {self.host}')

    def own_files(self, directory):
        """List what migrator itself makes in a guest's directory, markers excepted; a path that is no directory has none."""
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise exceptions.DriverError(f'{directory} cannot be read: {error.strerror}') from None
        return [os.path.join(directory, n) for n in names if _DISK.match(n) or _CONSOLE_LOGS.match(n) or n.startswith(markers.TEMPORARY)]


def locked(path):
    """True when some emulator, of this host or of another one on shared storage, has the image open; asking leaves no trace.

    A file that cannot be opened counts as locked: nothing is known of it. One that is not there does not.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_FROM, _LOCKED_BYTES, 0)
        return _FLOCK.unpack(fcntl.fcntl(descriptor, _F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK
    except OSError:
        return True
    finally:
        os.close(descriptor)


def temporaries(directory):
    """List the temporary files in a directory; one that is gone, or is no directory, has none. Raises OSError."""
    try:
        return [os.path.join(directory, n) for n in sorted(os.listdir(directory)) if n.startswith(markers.TEMPORARY)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _temporary(path, uuid='', storage=''):
    """Tell of a temporary file. A note's bears the guest's uuid in its name, and what is to be a migration's marker has its id in it."""
    named = os.path.basename(path).removeprefix(markers.TEMPORARY)[:36]
    told = markers.read(path)
    return traces.Trace('temporary', uuid or (named if facts.UUID.match(named) else ''), path,
                        migration_id=told if facts.UUID.match(told) else '', storage=storage)


def disk_images(paths):
    """Pick the disks."""
    return [p for p in paths if _DISK.match(os.path.basename(p))]


def console_logs(paths):
    """Pick the console's logs."""
    return [p for p in paths if _CONSOLE_LOGS.match(os.path.basename(p))]


def _clean(directory):
    if not directory.startswith('/'):
        raise exceptions.DriverError(f'the storage directory {directory!r} must be an absolute path')
    return os.path.normpath(directory)


def _opener(wanted):
    for process in filter(str.isdigit, os.listdir('/proc')):
        directory = f'/proc/{process}/fd'
        try:
            descriptors = os.listdir(directory)
        except OSError:
            continue  # it has ended
        for descriptor in descriptors:
            try:
                status = os.stat(f'{directory}/{descriptor}')  # of the open file itself, not of a path
            except OSError:
                continue  # closed in the meantime
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) in wanted:
                return int(process), wanted[status.st_dev, status.st_ino]
    return None


def _name_of(process):
    try:
        with open(f'/proc/{process}/comm', encoding='utf-8', errors='replace') as stream:
            return stream.read().strip()
    except OSError:
        return 'ended since'
