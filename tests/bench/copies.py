"""`tools/bench copy`: the host copy beside nbdcopy, qemu-img convert and dd, on the same two ends."""
import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from migrator.volume import copying
from tests.bench import measure
from tests.bench.endpoints import MIB, OWNER, Endpoints
from tests.bench.overhead import preferred
from tests.lab.processes import wait_until

#: Seconds that any one copy may take.
LONGEST = 300
#: Least share of nbdcopy's throughput; how many times dd's at a delay; a sparse copy's time to that of as much data without holes.
LEAST_OF_NBDCOPY, LEAST_OF_DD, MOST_FOR_HOLES = 0.9, 4.0, 1.25
#: What a sparse copy may allocate more than there is data.
MOST_ALLOCATED = 1.05
#: A sparse volume has one MiB of data out of so many.
SPREAD = 10
TOOLS = ('host copy', 'nbdcopy', 'qemu-img', 'dd')


def nbdcopy(ends):
    """nbdcopy, with the flush that makes the copy last, and told that the destination is new."""
    _run('nbdcopy', '--flush', '--destination-is-zero', *ends.uris)


def qemu_img(ends):
    """qemu-img convert with as many requests as it takes at once, told that the destination is new, flushed."""
    _run('qemu-img', 'convert', '-n', '-W', '-m', '16', '--target-is-zero', '-t', 'writeback', '-f', 'raw', '-O', 'raw', *ends.uris)


def dd(ends):
    """dd between files that nbdfuse shows the exports as; returns the seconds of dd alone."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_as_file(uri)) for uri in ends.uris]
        began = time.monotonic()
        _run('dd', f'if={files[0]}', f'of={files[1]}', 'bs=1M', 'conv=fsync,notrunc', 'status=none')
        return time.monotonic() - began


class HostCopy:
    """The volume agent's own copy, checkpoints and all; each is verified, sampled and wholly, and the times of that are kept apart."""

    def __init__(self, folder):
        self._copying = copying.Copying(folder)
        self.verified = {'sampled': [], 'full': []}

    def __call__(self, ends):
        """Copy; returns the seconds of that alone."""
        pair = [copying.End(uri, name) for uri, name in zip(ends.uris, ('source', 'destination'), strict=True)]
        self._copying.forget(OWNER)
        began = time.monotonic()
        self._copying.copy(OWNER, *pair)
        seconds = time.monotonic() - began
        for how, times in self.verified.items():
            began = time.monotonic()
            self._copying.verify(OWNER, *pair, how)
            times.append(time.monotonic() - began)
        return seconds


def of_case(ends, rounds, say):
    """Measure every tool once in each round, in turn; who begins changes. Returns {tool: summary, ...} with the throughputs."""
    host = HostCopy(str(ends.folder / 'checkpoints'))
    tools = dict(zip(TOOLS, (host, nbdcopy, qemu_img, dd), strict=True))
    times, allocated = {name: [] for name in tools}, []
    for number in range(rounds + 1):
        for name in _turned(TOOLS, number):
            ends.renew()
            began = time.monotonic()
            seconds = tools[name](ends) or time.monotonic() - began
            if number:                  # the round 0 warms up
                times[name].append(seconds)
                if name == 'host copy':
                    allocated.append(ends.allocated())
    found = {name: measure.summary(series) for name, series in times.items()}
    for name, numbers in found.items():
        numbers['mib_a_second'] = ends.data / MIB / numbers['median']
        say(f'  {name:<10} {numbers["median"]:7.3f} s  ({numbers["min"]:.3f} to {numbers["max"]:.3f})  '
            f'{numbers["mib_a_second"]:6.0f} MiB/s')
    verified = {how: measure.summary(series[1:]) for how, series in host.verified.items()}
    say('  verification of it, apart: ' + ', '.join(f'{how} {numbers["median"]:.3f} s' for how, numbers in verified.items()))
    return {'tools': found, 'verified': verified, 'allocated': max(allocated), 'data': ends.data,
            'of_nbdcopy': _ratio(times, 'nbdcopy'), 'of_dd': _ratio(times, 'dd'), 'of_qemu_img': _ratio(times, 'qemu-img')}


def _turned(names, number):
    number %= len(names)
    return names[number:] + names[:number]


def _ratio(times, other):
    """How many times as fast as another tool the host copy is: the median over the rounds, which a trend of the machine moves less."""
    return statistics.median(theirs / ours for theirs, ours in zip(times[other], times['host copy'], strict=True))


def verdicts(full, sparse, delayed):
    """Judge. Returns (words, passed) for each bound."""
    found = [(f'{name}: {case["of_nbdcopy"]:.2f} of nbdcopy\'s throughput (at least {LEAST_OF_NBDCOPY})',
              case['of_nbdcopy'] >= LEAST_OF_NBDCOPY) for name, case in (('full', full), ('sparse', sparse), ('delayed', delayed))]
    holes = sparse['tools']['host copy']['median'] / full['tools']['host copy']['median']
    taken = sparse['allocated'] / sparse['data']
    return [*found,
            (f'sparse: {holes:.2f} of the time that the same data takes without holes (at most {MOST_FOR_HOLES})', holes <= MOST_FOR_HOLES),
            (f'sparse: {taken:.3f} of the data is allocated (at most {MOST_ALLOCATED})', taken <= MOST_ALLOCATED),
            (f'delayed: {delayed["of_dd"]:.1f} times dd (at least {LEAST_OF_DD:.0f})', delayed['of_dd'] >= LEAST_OF_DD)]


def run(arguments, say):
    """Measure the three cases. Returns (results, verdicts)."""
    missing = [program for program in ('nbdcopy', 'nbdfuse', 'nbdkit', 'qemu-img', 'qemu-storage-daemon') if shutil.which(program) is None]
    if not os.path.exists('/dev/fuse'):
        missing.append('/dev/fuse')
    if missing:
        raise RuntimeError(f'this machine does not have {", ".join(missing)}')
    size, delay = arguments.size * MIB, arguments.delay / 1000
    data = f'{arguments.size} MiB of data'
    cases = {'full': (data, {'size': size}),
             'sparse': (f'{data} in {SPREAD * arguments.size} MiB', {'size': SPREAD * size, 'spread': SPREAD}),
             'delayed': (f'{data}, {arguments.delay} ms at each end', {'size': size, 'delay': delay})}
    results = {}
    with preferred(arguments.realtime):
        for name, (words, form) in cases.items():
            say(f'{name}: {words}; medians of {arguments.rounds}')
            with Endpoints(arguments.folder, **form) as ends:
                results[name] = of_case(ends, arguments.rounds, say)
    return results, verdicts(**results)


@contextlib.contextmanager
def _as_file(uri):
    """Show an export as a file."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='bench-'))
    with subprocess.Popen(['nbdfuse', str(folder), uri], stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: (folder / 'nbd').exists() or process.poll() is not None, 10, 'nbdfuse')
            yield folder / 'nbd'
        finally:
            subprocess.run(['umount', str(folder)], capture_output=True, timeout=30)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
    folder.rmdir()


def _run(*command):
    """Run a tool; RuntimeError with its words when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONGEST)
    if done.returncode:
        raise RuntimeError(f'{command[0]} failed: {done.stderr.strip()[-400:]}')
