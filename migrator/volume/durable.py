"""Files that are whole or not there, also after a loss of power; and what is said when there is no room for one."""
import errno
import os
import re
import tempfile

from migrator import exceptions

#: By these a file system says that it is full.
FULL = (errno.ENOSPC, errno.EDQUOT)


#: Names of files that are being written: what tempfile adds to the prefix.
_TEMPORARY = re.compile(r'\.lun-[a-z0-9_]{8}\Z')


def tidy(directory):
    """Remove files that were being written when whoever wrote them died. Only for who knows that nobody writes now. Raises OSError."""
    for name in os.listdir(directory):
        if _TEMPORARY.match(name):
            os.unlink(os.path.join(directory, name))


def write(place, text):
    """Replace a file by one with this text, which is durable. Its name is not, until the directory is flushed. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(prefix='.lun-', dir=os.path.dirname(place))
    try:
        with os.fdopen(descriptor, 'w', encoding='utf-8') as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, place)
    except OSError:
        os.unlink(temporary)
        raise


def sync(directory):
    """Make a directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_room(error, what):
    """Turn an OSError into the typed error that a caller understands."""
    kind = exceptions.NoSpace if error.errno in FULL else exceptions.DriverError
    return kind(f'{what} cannot be written: {error.strerror or error}')
