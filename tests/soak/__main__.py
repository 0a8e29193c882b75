"""The command `tools/soak`. Exit code 0: no violation; 1: there was one; 2: it did not run."""
import argparse
import json
import logging
import pathlib
import secrets
import sys

from tests.lab import LabError
from tests.soak import run


def parser():
    """Describe the command line."""
    top = argparse.ArgumentParser(prog='tools/soak', description='Random migrations and random faults, with the promise checked.')
    top.add_argument('--minutes', type=float, default=3.0, metavar='N', help='for how long faults are injected; 3')
    top.add_argument('--lab', action='store_true', help='in the libvirt lab (root), not with simulated hypervisors')
    top.add_argument('--hosts', type=int, default=0, metavar='N', help='hosts: 24 simulated ones, an agent process each, or 3 in the lab')
    top.add_argument('--guests', type=int, default=3, metavar='N', help='guests in the lab; 3')
    top.add_argument('--seed', default='', help='a seed that was printed, to have its choices of faults and times again')
    top.add_argument('--rate', type=float, default=0, metavar='N', help='migrations asked for each minute: 60 simulated, 8 in the lab')
    top.add_argument('--faults', type=float, default=0, metavar='N', help='faults each minute: 24 simulated, 5 in the lab')
    top.add_argument('--database', choices=('mariadb', 'postgresql'), default='mariadb')
    top.add_argument('--json', type=pathlib.Path, metavar='FILE', help='also write the results to this file')
    return top


def stage_of(arguments, seed):
    """Describe the cloud that was asked for; it is not up yet."""
    database = 'mysql' if arguments.database == 'mariadb' else 'postgresql'
    if arguments.lab:
        from tests.soak.lab import LabStage
        return LabStage(arguments.hosts or 3, arguments.guests, database)
    from tests.soak.simulated import SimulatedStage
    return SimulatedStage(arguments.hosts or 24, database, seed)


def say(line):
    """Print a line at once."""
    print(line, flush=True)


def main(argv):
    """Run a soak. Returns the exit code."""
    arguments = parser().parse_args(argv)
    if arguments.minutes <= 0 or arguments.guests < 1 or (arguments.hosts and arguments.hosts < 2):
        parser().error('minutes and guests must be positive, and a migration needs 2 hosts')
    logging.basicConfig(level=logging.CRITICAL)
    seed, results = arguments.seed or secrets.token_hex(4), {}
    try:
        with stage_of(arguments, seed) as stage, run.evidence(stage, results, say):
            rates = arguments.rate or (8 if arguments.lab else 60), arguments.faults or (5 if arguments.lab else 24)
            results.update(run.Soak(stage, seed, arguments.minutes * 60, *rates, say).run())
            run.report(results, say)
    except (LabError, RuntimeError, PermissionError) as error:
        print(f'tools/soak: {error}', file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + '\n')
    return 1 if results['violations'] else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
