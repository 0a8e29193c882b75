"""The command `tools/bench`: python -m tests.bench overhead|copy [options].

Exit code 0: everything within bounds, 1: not, 2: it did not run.
"""
import argparse
import json
import logging
import os
import pathlib
import platform
import sys
import time

from tests.bench import copies, overhead
from tests.lab import LabError


def parser():
    """Describe the command line."""
    top = argparse.ArgumentParser(prog='tools/bench', description='Measures what migrator costs, and how fast it copies.')
    kinds = top.add_subparsers(dest='kind', required=True)
    one = kinds.add_parser('overhead', help='an orchestrated live migration against libvirt\'s bare call, and what it costs')
    one.add_argument('--pairs', type=int, default=10, metavar='N', help='pairs of a bare and an orchestrated migration in each set; 10')
    one.add_argument('--in-flight', type=int, default=500, metavar='N',
                     help='simulated migrations in flight when the cost is counted again; 0: not counted again; 500')
    one.add_argument('--database', choices=sorted(overhead.KINDS), default='mariadb', help='mariadb; sqlite keeps no log to count')
    one.add_argument('--realtime', action='store_true', help='run daemons, servers, libvirt and the guest with real-time priority, so that '
                                                             'what else the machine does disturbs the times less')
    one.add_argument('--simulated', action='store_true', help='only count, with simulated hypervisors: needs neither root nor libvirt')
    two = kinds.add_parser('copy', help='the host copy of a volume beside nbdcopy, qemu-img convert and dd')
    two.add_argument('--rounds', type=int, default=7, metavar='N', help='how often each is measured; 7')
    two.add_argument('--size', type=int, default=256, metavar='MIB', help='data of a volume in MiB; 256')
    two.add_argument('--delay', type=float, default=2.0, metavar='MS', help='milliseconds added at each end in the last case; 2')
    two.add_argument('--folder', default='/dev/shm', help='where the arrays have their files; /dev/shm, which leaves the disk out of it')
    two.add_argument('--realtime', action='store_true', help='run everything with real-time priority, as above')
    for any_kind in (one, two):
        any_kind.add_argument('--json', metavar='FILE', type=pathlib.Path, help='also write the numbers to this file')
    return top


def machine():
    """Describe the machine."""
    model = next((line.partition(':')[2].strip() for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines()
                  if line.startswith('model name')), 'unknown')
    return {'cpus': os.cpu_count(), 'model': model, 'kernel': platform.release(), 'python': platform.python_version(),
            'load': os.getloadavg()[0], 'kvm': os.path.exists('/dev/kvm')}


def main(argv):
    """Run a benchmark. Returns the exit code."""
    arguments = parser().parse_args(argv)
    numbers = (arguments.rounds, arguments.size) if arguments.kind == 'copy' else (arguments.pairs, arguments.in_flight + 1)
    if min(numbers) < 1:
        parser().error('numbers must be positive')
    logging.basicConfig(level=logging.ERROR)
    began, about = time.monotonic(), machine()
    options = {name: value for name, value in vars(arguments).items() if name not in ('json', 'folder')}
    say(f'{about["cpus"]} CPUs ({about["model"]}), load {about["load"]:.2f}, Python {about["python"]}; '
        + ', '.join(f'{name} {value}' for name, value in options.items()))
    try:
        results, verdicts = measured(arguments)
    except (LabError, RuntimeError, PermissionError) as error:
        print(f'tools/bench: {error}', file=sys.stderr)
        return 2
    say('')
    for words, passed in verdicts:
        say(f'{"ok  " if passed else "MISS"} {words}')
    right = all(passed for _, passed in verdicts)
    say(f'{"everything is within its bounds" if right else "not everything is within its bounds"} ({time.monotonic() - began:.0f} s)')
    if arguments.json:
        arguments.json.write_text(json.dumps({'machine': about, **options, **results, 'passed': right,
                                              'verdicts': [{'words': w, 'passed': p} for w, p in verdicts]}, indent=1) + '\n')
    return 0 if right else 1


def measured(arguments):
    """Do what was asked for. Returns (results, verdicts)."""
    if arguments.kind == 'copy':
        return copies.run(arguments, say)
    return (overhead.simulated if arguments.simulated else overhead.on_lab)(arguments, say)


def say(line):
    """Print a line at once."""
    print(line, flush=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
