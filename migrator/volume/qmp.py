"""Talk to a qemu-storage-daemon by QMP, one short session at a time.

The monitor's socket serves one client at once, so a session is opened for a few commands and closed again; several threads of the
agent take turns. A daemon that restarts in between is simply met by the next session. Native sockets, for drivers run in native threads.
"""
import contextlib
import json

from migrator import concurrency, exceptions

#: Longest line that the daemon may send, in bytes; a listing of some thousand nodes is far below.
LONGEST_LINE = 64 << 20


class ArraySilent(exceptions.DriverError):
    """The storage daemon does not answer."""


class Refused(exceptions.DriverError):
    """The storage daemon refused a command."""


class Monitor:
    """The way to one daemon. path: its QMP socket. timeout: seconds for each answer, and for another session to end."""

    def __init__(self, path, timeout=10.0):
        self.path = path
        self.timeout = timeout
        self._turn = concurrency.native_lock()

    @contextlib.contextmanager
    def session(self):
        """Give a Session; raises ArraySilent when the daemon cannot be reached or stops answering."""
        if not self._turn.acquire(timeout=self.timeout):
            raise ArraySilent(f'the monitor {self.path} is in use')
        try:
            with concurrency.native_unix_socket() as link:
                session = Session(link, self.path, self.timeout)
                with contextlib.closing(session):
                    yield session
        except (OSError, ValueError) as error:          # ValueError: what came is no JSON
            raise ArraySilent(f'the storage daemon at {self.path} does not answer: {error}') from error
        finally:
            self._turn.release()


class Session:
    """One connection. Call it with a command's name and its arguments, `_` for `-` in their names."""

    def __init__(self, link, path, timeout):
        link.settimeout(timeout)
        link.connect(path)
        self._link = link
        self._stream = link.makefile('rb')
        self._read()                                    # the greeting
        self('qmp_capabilities')

    def __call__(self, command, **arguments):
        """Returns what the daemon returned; raises Refused with its words."""
        request = {'execute': command, 'arguments': {name.replace('_', '-'): value for name, value in arguments.items()}}
        self._link.sendall(json.dumps(request).encode() + b'\n')
        while True:
            answer = self._read()
            if 'error' in answer:
                raise Refused(f'{command}: {answer["error"].get("desc", "refused")}')
            if 'return' in answer:
                return answer['return']                 # anything else is an event; what is true is asked, not listened for

    def close(self):
        """Let go of the connection, which the stream would else keep open for as long as somebody holds this object."""
        self._stream.close()

    def _read(self):
        line = self._stream.readline(LONGEST_LINE)
        if not line.endswith(b'\n'):
            raise OSError('the connection was closed')
        return json.loads(line)
