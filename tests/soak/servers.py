"""Broker and database as something that can be frozen, crash and come back, wherever tests started them."""
import contextlib
import pathlib
import signal
import subprocess

from tests.lab import LabError, processes


def _read(pid, what):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f'/proc/{pid}/{what}').read_bytes().decode(errors='replace')
    return ''      # it has ended


def find(root, *programs):
    """Find the process of a server among the descendants of `root` by its program's name; the one that is nearest to root."""
    for pid in processes.descendants(root):
        if _read(pid, 'comm').strip() in programs:
            return pid
    raise LabError(f'process {root} has no {", ".join(programs)} below it')


@contextlib.contextmanager
def frozen(pid):
    """SIGSTOP for the time of the with-block, of a process and all below it."""
    family = [pid, *processes.descendants(pid)]
    for one in family:
        processes.send(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            processes.send(one, signal.SIGCONT)


class Broker:
    """A RabbitMQ below the process `root`."""

    def __init__(self, root):
        self._root = root

    @contextlib.contextmanager
    def frozen(self):
        """Hold it."""
        with frozen(find(self._root, 'beam.smp')):
            yield

    @contextlib.contextmanager
    def stopped(self):
        """Stop it in the way in which an operator does; every connection ends."""
        pid = find(self._root, 'beam.smp')
        self._control(pid, 'stop_app')
        try:
            yield
        finally:
            self._control(pid, 'start_app')

    @staticmethod
    def _control(pid, what):
        pairs = (entry.partition('=') for entry in _read(pid, 'environ').split('\0') if entry)
        environment = {name: value for name, _, value in pairs}
        done = subprocess.run(['nsenter', '--target', str(pid), '--all', '--', 'rabbitmqctl', '-n', environment['RABBITMQ_NODENAME'], what],
                              env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90)
        if done.returncode:
            raise LabError(f'rabbitmqctl {what}: {done.stdout}{done.stderr}')


class Database:
    """A MariaDB or PostgreSQL below the process `root`."""

    def __init__(self, root, kind):
        """kind: mysql or postgresql."""
        self._root, self._kind = root, kind
        self._revived = []

    @contextlib.contextmanager
    def frozen(self):
        """Hold it."""
        with frozen(self._pid()):
            yield

    @contextlib.contextmanager
    def stopped(self):
        """Crash it (SIGKILL) and start it again after the with-block. Of PostgreSQL a part is killed: it cuts all off and recovers."""
        if self._kind == 'postgresql':
            for pid in processes.children(self._pid())[:1]:
                processes.send(pid, signal.SIGKILL)
            yield
            return
        pid = self._pid()
        argv, keeper = processes.arguments(pid), int(_read(pid, 'stat').rpartition(')')[2].split()[1])
        processes.send(pid, signal.SIGKILL)
        processes.wait_until(lambda: not processes.alive(pid), 20, 'end of the database')
        try:
            yield
        finally:
            process = subprocess.Popen(['nsenter', '--target', str(keeper), '--all', '--', *argv], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            self._revived.append(process)

    def end(self):
        """End what was started again here; whoever made the server ends the rest."""
        for process in self._revived:
            for pid in processes.descendants(process.pid):
                processes.send(pid, signal.SIGKILL)
            process.wait(20)

    def _pid(self):
        roots = [self._root, *(process.pid for process in self._revived if process.poll() is None)]
        for root in roots:
            with contextlib.suppress(LabError):
                return find(root, *(('mysqld', 'mariadbd') if self._kind == 'mysql' else ('postgres',)))
        raise LabError('the database runs nowhere')
