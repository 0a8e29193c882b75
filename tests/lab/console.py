"""What a guest says on its serial console, followed over every host that it visits.

Each host's QEMU writes a console.log in the instance's directory there. `Console` follows all of them, keeps what it read
when a file is removed with the source's directory, and stamps every line with this machine's clock: the guest's own clock stands
still while it is paused, so only the arrival shows how long a guest was silent.
"""
import dataclasses
import itertools
import os
import re
import threading
import time

from tests.lab.processes import wait_until

#: Where the kernel adds up for how long some process waited for a processor.
PRESSURE = '/proc/pressure/cpu'
TICK = re.compile(r'tick (\d+) (\d+\.\d+)\Z')
WROTE = re.compile(r'wrote (\d+) (\d+\.\d+)\Z')


@dataclasses.dataclass(frozen=True)
class Tick:
    """One count of a guest: its number, the guest's uptime in seconds, and when it was read here (monotonic seconds; 0: unknown).

    starved: seconds, since this machine's start, for which some process had waited for a processor when it was read.
    """

    number: int
    uptime: float
    seen: float = 0.0
    starved: float = 0.0


def _matches(pattern, lines):
    for seen, starved, line in lines:
        match = pattern.fullmatch(line)
        if match:
            yield Tick(int(match[1]), float(match[2]), seen, starved)


def lack_of_processors(path=PRESSURE):
    """Seconds for which some process of this machine has waited for a processor so far; 0 where the kernel does not tell."""
    try:
        with open(path, encoding='ascii') as file:
            return int(file.readline().rpartition('total=')[2]) / 1e6
    except OSError:
        return 0.0


def parse_ticks(text):
    """The ticks in the text of a console file, in the order in which they stand there."""
    return list(_matches(TICK, ((0.0, 0.0, line.strip()) for line in text.splitlines())))


def find_gaps(ticks, longer_than, by='uptime'):
    """Pairs of neighbouring ticks more than `longer_than` seconds apart; `by` is 'uptime' (the guest's clock) or 'seen' (ours)."""
    return [(one, two) for one, two in itertools.pairwise(ticks) if getattr(two, by) - getattr(one, by) > longer_than]


class Console:
    """Follows a guest's console files from construction until `close`; use it as a context manager."""

    def __init__(self, paths, interval=0.02):
        """`paths`: the guest's console.log as it is or will be on each host, from outside; `interval`: seconds between two looks."""
        self._paths = [str(path) for path in paths]
        self._interval = interval
        self._open = {}                                              # (device, inode) -> file
        self._last = None                                            # the file that spoke last
        self._partial = ''
        self._lines = []                                             # (monotonic, starved, text)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name='console', daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Stop following; what was read stays readable."""
        self._stop.set()
        self._thread.join(10)
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _follow(self):
        while not self._stop.is_set():
            self._look()
            self._stop.wait(self._interval)
        self._look()

    def _look(self):
        """Open what has appeared and take in what has been written, the file that spoke last before the others."""
        for path in self._paths:
            try:
                found = os.stat(path)
                key = (found.st_dev, found.st_ino)
                if key not in self._open:
                    self._open[key] = open(path, 'rb')               # stays open after the file is removed
            except FileNotFoundError:
                continue                                             # the guest is not there, or not any more
        now = time.monotonic()
        for key in sorted(self._open, key=lambda key: key != self._last):
            data = self._open[key].read()
            if data:
                self._last = key
                self._take(now, data.decode(errors='replace'))

    def _take(self, now, text):
        starved = lack_of_processors()
        *whole, self._partial = (self._partial + text).replace('\r', '').split('\n')
        with self._lock:
            self._lines += [(now, starved, line) for line in whole]

    def text(self):
        """Everything that was said so far, in whole lines."""
        with self._lock:
            return '\n'.join(line for *_, line in self._lines)

    def ticks(self):
        """Every tick so far."""
        with self._lock:
            return list(_matches(TICK, self._lines))

    def written(self):
        """Every record so far that the guest knows to be on its disk, as Ticks."""
        with self._lock:
            return list(_matches(WROTE, self._lines))

    def last_written(self):
        """Number of the last record that the guest knows to be on its disk; 0 if there is none."""
        return max((tick.number for tick in self.written()), default=0)

    def missing(self):
        """Numbers of ticks between the first and the last one that no host's console has. A restart of the guest counts anew.

        Two consoles may take turns: after a broken hand-over libvirt lets the guest run on at the source for the instant until it is
        held there, so the order of the lines says nothing.
        """
        runs = [[]]
        for tick in self.ticks():
            if tick.number == 0:
                runs.append([])
            runs[-1].append(tick.number)
        return [number for run in runs if run for number in sorted(set(range(min(run), max(run))) - set(run))]

    def largest_gap(self, since=0.0, by='seen'):
        """Longest silence in seconds between two ticks of which the first was read at or after `since` (monotonic seconds)."""
        ticks = [tick for tick in self.ticks() if tick.seen >= since]
        return max((getattr(two, by) - getattr(one, by) for one, two in itertools.pairwise(ticks)), default=0.0)

    def longest_pause(self):
        """Longest silence in seconds between two ticks that a lack of processors does not explain.

        On a busy machine an emulator waits for its turn. That time, in which some process waited, is not counted.
        """
        pairs = itertools.pairwise(self.ticks())
        return max((two.seen - one.seen - (two.starved - one.starved) for one, two in pairs), default=0.0)

    def wait_for(self, text, timeout=30):
        """Wait until a line contains `text`. LabError if none does within `timeout` seconds."""
        wait_until(lambda: text in self.text(), timeout, f'{text!r} on the console, which says {self.text()[-300:]!r}')

    def wait_ticks(self, more=3, timeout=30):
        """Wait until the guest has counted `more` times from now on: it lives. LabError if it does not."""
        before = len(self.ticks())
        wait_until(lambda: len(self.ticks()) >= before + more, timeout, f'{more} more ticks after {self.text()[-200:]!r}')

    def wait_written(self, more=3, timeout=30):
        """Wait until the guest has confirmed `more` records from now on. LabError if it does not."""
        before = len(self.written())
        wait_until(lambda: len(self.written()) >= before + more, timeout, f'{more} more records after {self.text()[-200:]!r}')
