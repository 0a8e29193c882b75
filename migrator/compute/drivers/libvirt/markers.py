"""Small files that say who made what: the identity of a storage directory, and the markers of guests' directories.

Everything is written so that a crash or two writers at once leave either nothing or the whole: a temporary file and a link, or a
directory that appears together with the marker in it.
"""
import contextlib
import os
import shutil
import tempfile
import uuid

from migrator import exceptions

IDENTITY = '.migrator-storage-id'
CREATED = '.migrator-created'       # in a guest's directory: the name of the host that is in charge of it
MIGRATION = '.migrator-migration'   # in a guest's directory, or as a suffix of a single file: the migration that made it
TEMPORARY = '.migrator-tmp-'        # begins the name of a file that is being made and then takes its place
_LIMIT = 256


def read(path):
    """Give the text of a small file, '' when there is none. Raises DriverError when it cannot be read."""
    try:
        with open(path, encoding='ascii', errors='replace') as stream:
            return stream.read(_LIMIT).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ''
    except OSError as error:
        raise exceptions.DriverError(f'{path} cannot be read: {error.strerror}') from None


def _temporary(path):
    """Open a file in place of `path`, whose name it bears after TEMPORARY. Returns (descriptor, path)."""
    directory, name = os.path.split(path)
    return tempfile.mkstemp(prefix=f'{TEMPORARY}{name[:64]}-', dir=directory)


def create(path, text):
    """Write a small file that is not there yet; returns what is in it afterwards, which is another writer's text if that was first."""
    descriptor, temporary = _temporary(path)
    try:
        _write(descriptor, text)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    sync_directory(os.path.dirname(path))
    return read(path)


def replace(path, text):
    """Write a small file, in place of the one that may be there."""
    descriptor, temporary = _temporary(path)
    try:
        _write(descriptor, text)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def _write(descriptor, text):
    try:
        os.write(descriptor, f'{text}\n'.encode('ascii', 'replace'))
        os.fchmod(descriptor, 0o644)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path):
    """Make names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path):
    """Remove a file; True if it was there. Raises DriverError in words."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise exceptions.DriverError(f'{path} cannot be removed: {error.strerror}') from None
    return True


def identity(directory):
    """Give the permanent identity of a storage directory, '' when it has none or cannot be read: then nothing is known about it."""
    try:
        return read(os.path.join(directory, IDENTITY))
    except exceptions.DriverError:
        return ''


def make_identity(directory):
    """Make a storage directory and its identity where missing; whoever comes second on shared storage reads the first one's.

    Returns the identity. Raises DriverError in words.
    """
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        path = os.path.join(directory, IDENTITY)
        return read(path) or create(path, str(uuid.uuid4()))
    except OSError as error:
        raise exceptions.DriverError(f'the storage directory {directory} cannot be used: {error.strerror}') from None


def claim(directory, marker, text):
    """Make `directory` together with a marker file in it, or find it made so already.

    Returns True if it is ours now: made here, or there already with the same marker and text. False if something else is there;
    then nothing was changed.
    """
    parent, name = os.path.split(directory)
    # The name is fixed, so that one left by a crash is found and used up by the next try instead of staying for ever.
    temporary = os.path.join(parent, f'.migrator-new-{name}-{text}')
    try:
        if not os.path.lexists(directory):
            shutil.rmtree(temporary, ignore_errors=True)
            os.mkdir(temporary)
            os.chmod(temporary, 0o755)  # the emulator runs as another user and must get through, whatever the umask
            replace(os.path.join(temporary, marker), text)
            os.rename(temporary, directory)
            sync_directory(parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not os.path.lexists(directory):
            raise exceptions.DriverError(f'{directory} cannot be made: {error.strerror}') from None
    return read(os.path.join(directory, marker)) == text


def discard_directory(directory):
    """Remove an empty directory; returns '' when it is gone, else in words why it stays."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return ''
    except OSError:
        with contextlib.suppress(OSError):
            return f'{directory} stays: it also holds {", ".join(sorted(os.listdir(directory))[:5])}'
        return f'{directory} stays: it cannot be read'
    return ''
