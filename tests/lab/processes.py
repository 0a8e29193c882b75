"""Processes of a lab: what runs in a host's namespaces, and long-running programs with a log.

A process is told from another that got the same number later by its start time, as /proc has it.
"""
import json
import os
import pathlib
import signal
import subprocess
import time

from tests.lab.errors import LabError


def wait_until(condition, timeout, what, interval=0.02):
    """Poll `condition` until it gives something true, and return that; LabError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise LabError(f'{what}: not within {timeout} s')
        time.sleep(interval)


def _read(path):
    """Content of a file in /proc, or '' when its process has ended."""
    try:
        return pathlib.Path(path).read_bytes().decode(errors='replace')
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ''


def start_time(pid):
    """When `pid` was started, in the kernel's ticks; '' if there is no such process or it has ended (zombie)."""
    fields = _read(f'/proc/{pid}/stat').rpartition(')')[2].split()
    return '' if not fields or fields[0] in 'ZX' else fields[19]


def alive(pid):
    """Whether `pid` is a process that has not ended."""
    return bool(start_time(pid))


def arguments(pid):
    """The command line of `pid` as a list; empty when it has none or has ended."""
    return _read(f'/proc/{pid}/cmdline').split('\0')[:-1]


def all_pids():
    """Every process id of the machine (of this PID namespace)."""
    return [int(name) for name in os.listdir('/proc') if name.isdigit()]


def children(pid):
    """Direct children of `pid`."""
    return [int(word) for word in _read(f'/proc/{pid}/task/{pid}/children').split()]


def descendants(pid):
    """Children of `pid`, their children, and so on."""
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def inside(namespace):
    """Processes in the PID namespace of that name (as in `pid:[4026531836]`), by their numbers out here."""
    found = []
    for pid in all_pids():
        try:
            if os.readlink(f'/proc/{pid}/ns/pid') == namespace and alive(pid):
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue                                                 # it ended while we looked, or is none that we could have started
    return found


def number_inside(pid):
    """The number that `pid` has in its own PID namespace, 0 when it has ended."""
    for line in _read(f'/proc/{pid}/status').splitlines():
        if line.startswith('NSpid:'):
            return int(line.split()[-1])
    return 0


def send(pid, number):
    """Send a signal; True if the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class HostProcess(subprocess.Popen):
    """A program in the namespaces of a host: a Popen whose signals reach the program and not the `nsenter` in front of it."""

    _program = None

    @property
    def program(self):
        """Process id of the program itself, as seen from out here; None if it ended before it was ever seen."""
        if self._program is None:
            wait_until(lambda: children(self.pid) or self.poll() is not None, 5, f'start of {self.args[-1]}', interval=0.002)
            found = children(self.pid)
            self._program = found[0] if found else None
        return self._program

    def send_signal(self, number):
        """Send a signal to the program. Nothing happens if it has ended."""
        if self.poll() is None and self.program:
            send(self.program, number)
            if number != signal.SIGSTOP:
                # nsenter stops itself when it sees its program stopped, and would then never see it end.
                send(self.pid, signal.SIGCONT)


class Daemon:
    """A long-running program with a log file, in a host of the lab (`place`) or, with place None, on the machine itself.

    A record of it stands in `folder` as long as it runs, so that another process, `tools/lab status` for one, finds it.
    """

    def __init__(self, name, argv, log, folder, place=None, env=None):
        """Describe the program; nothing is started. `env` is added to the environment; `log` is a path, appended to."""
        self.name, self.argv, self.log, self.place, self.env = name, [str(word) for word in argv], pathlib.Path(log), place, env or {}
        self.record = pathlib.Path(folder) / f'{name}.json'
        self.process = None
        self._log_from = 0

    def start(self):
        """Start the program, or start it again. LabError if it still runs."""
        if self.running():
            raise LabError(f'{self.name} runs already')
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, 'ab') as log:
            self._log_from = log.tell()
            options = {'stdin': subprocess.DEVNULL, 'stdout': log, 'stderr': subprocess.STDOUT,
                       'env': {**os.environ, **self.env}, 'start_new_session': True}
            self.process = self.place.popen(self.argv, **options) if self.place else subprocess.Popen(self.argv, **options)
        pid = self.pid
        self.record.write_text(json.dumps({'name': self.name, 'host': self.place.name if self.place else '', 'pid': pid,
                                           'started': start_time(pid) if pid else '', 'log': str(self.log)}))
        return self

    @property
    def pid(self):
        """Process id of the program (not of what starts it in the host), as seen from out here; None before the start."""
        return self.process and (self.process.program if isinstance(self.process, HostProcess) else self.process.pid)

    def running(self):
        """Whether the program was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def output(self):
        """What the program wrote to its log since its last start."""
        with open(self.log, 'rb') as log:
            log.seek(self._log_from)
            return log.read().decode(errors='replace')

    def wait_for(self, text, timeout=20):
        """Wait until `text` stands in the log since the last start; LabError with the log's end if the program ends first."""
        def seen():
            if text in self.output():
                return True
            if not self.running():
                raise LabError(f'{self.name} ended with {self.process.returncode}: {self.output()[-2000:]}')
            return False
        try:
            wait_until(seen, timeout, f'{text!r} in the log of {self.name}')
        except LabError as error:
            raise LabError(f'{error}; its log ends: {self.output()[-2000:]}') from None

    def kill(self):
        """End the program at once (SIGKILL), as a crash does, and wait until it is gone."""
        self._end(signal.SIGKILL, 10)

    def terminate(self, timeout=15):
        """Ask the program to end (SIGTERM); return its exit code. LabError, after killing it, if it does not within `timeout` s."""
        return self._end(signal.SIGTERM, timeout)

    def pause(self):
        """Freeze the program (SIGSTOP), as a hung process."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Let a frozen program go on."""
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number, timeout):
        if self.process is None:
            return None
        self.process.send_signal(number)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise LabError(f'{self.name} did not end within {timeout} s of signal {number}') from None
        finally:
            self.record.unlink(missing_ok=True)
        return self.process.returncode
