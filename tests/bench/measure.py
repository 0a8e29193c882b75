"""Numbers: the clock of the processor that a process has used, and what is said of a series of times."""
import itertools
import os
import pathlib
import statistics
import time

_TICKS = os.sysconf('SC_CLK_TCK')


def cpu_seconds(pid):
    """Processor seconds that a process has used so far, in user and kernel mode; 0.0 if it has ended."""
    try:
        fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Processor:
    """What daemons use of the processor between `start` and `stop`, and how much of it they would have used anyway."""

    def __init__(self, pids):
        """pids: {name: process id}."""
        self._pids = pids

    def __enter__(self):
        self._began, self._used = time.monotonic(), {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self._began
        self.used = {name: cpu_seconds(pid) - self._used[name] for name, pid in self._pids.items()}

    def rate(self):
        """Processor seconds a second, by daemon."""
        return {name: used / self.seconds for name, used in self.used.items()}

    def above(self, idle, count):
        """Processor seconds above the idle rates, by daemon, for each of `count` events. idle: the `rate` of a Processor."""
        return {name: (used - idle[name] * self.seconds) / count for name, used in self.used.items()}


def phases(moments):
    """Split a migration's timeline into its phases. moments: (milliseconds, step, what happened, reason), in order.

    Returns {what went on from one entry to the next: seconds}; an operation's phase ends as its outcome is recorded.
    """
    found = {}
    for (begin, step, what, _), (end, *_rest) in itertools.pairwise(moments):
        name = {'requested': 'checks', 'observe': 'observation'}.get(what, step)
        found[name] = found.get(name, 0.0) + (end - begin) / 1000
    return found


def medians(series):
    """Give the median of each key over dicts of numbers that have the same keys."""
    return {name: statistics.median(one[name] for one in series) for name in series[0]}


def summary(times):
    """Describe seconds: median, least, most, and how many."""
    return {'median': statistics.median(times), 'min': min(times), 'max': max(times), 'count': len(times)}


def compare(bare, orchestrated):
    """Compare two series of seconds that were measured in pairs.

    ratio, added: of the medians. added_in_pairs: the median of each pair's difference, which a slow trend of the machine moves less.
    """
    first, second = summary(bare), summary(orchestrated)
    differences = [b - a for a, b in zip(bare, orchestrated, strict=True)]
    return {'bare': first, 'orchestrated': second, 'ratio': second['median'] / first['median'], 'added': second['median'] - first['median'],
            'added_in_pairs': statistics.median(differences), 'pairs': list(zip(bare, orchestrated, strict=True))}
