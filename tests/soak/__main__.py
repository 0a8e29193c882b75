"""The command `tools/soak`. Exit code 0: no violation; 1: there was one; 2: wrong options; 3: it could not be done, or was broken off."""
import argparse
import json
import logging
import math
import os
import pathlib
import secrets
import sys
import traceback

import fixtures

from tests.lab import LabError
from tests.soak import run

CLEAN, VIOLATED, BROKEN = 0, 1, 3


def positive(text):
    """Read a number above zero that is one; argparse tells of any other in these words."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is no number above 0')
    return number


def count(least):
    """Make a reader of whole numbers that are not below `least`."""
    def read(text):
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f'{text} is no whole number of at least {least}')
        return int(text)
    return read


def file_to_be(text):
    """Read the name of a file that can be written; it is wanted only after minutes, so it is looked at now."""
    path = pathlib.Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f'{text} cannot be written: it is a folder, or its folder is not there or not open to you')
    return path


def parser():
    """Describe the command line."""
    top = argparse.ArgumentParser(prog='tools/soak', description='Random migrations and random faults, with the promise checked.')
    top.add_argument('--minutes', type=positive, default=3.0, metavar='N', help='for how long faults are injected; 3')
    top.add_argument('--lab', action='store_true', help='in the libvirt lab (root), not with simulated hypervisors')
    top.add_argument('--hosts', type=count(2), metavar='N', help='hosts: 24 simulated ones, an agent process each, or 3 in the lab')
    top.add_argument('--guests', type=count(1), default=3, metavar='N', help='guests in the lab; 3')
    top.add_argument('--seed', default='', help='a seed that was printed, to have its choices of faults and times again')
    top.add_argument('--rate', type=positive, metavar='N', help='migrations asked for each minute: 60 simulated, 8 in the lab')
    top.add_argument('--faults', type=positive, metavar='N', help='faults each minute: 24 simulated, 5 in the lab')
    top.add_argument('--database', choices=('mariadb', 'postgresql'), default='mariadb')
    top.add_argument('--json', type=file_to_be, metavar='FILE', help='also write the results to this file')
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


def soaked(arguments, seed):
    """Run a soak and write down what came of it. Returns the exit code."""
    results, soak = {}, None
    try:
        with stage_of(arguments, seed) as stage, run.evidence(stage, results, say):
            rates = arguments.rate or (8 if arguments.lab else 60), arguments.faults or (5 if arguments.lab else 24)
            soak = run.Soak(stage, seed, arguments.minutes * 60, *rates, say)
            results.update(seed=seed, violations=soak.found)        # all that is kept of a run that is broken off
            results.update(soak.run())
            run.report(results, say)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + '\n')
    except (Exception, KeyboardInterrupt) as error:
        while isinstance(error, fixtures.MultipleExceptions):   # a stage that did not come up: what its parts said, the first one first
            error = error.args[0][1]
        if not isinstance(error, (LabError, RuntimeError, PermissionError, KeyboardInterrupt)):
            traceback.print_exception(error)
        print(f'tools/soak: it could not be brought to its end: {type(error).__name__}: {error}', file=sys.stderr)
        return VIOLATED if soak and soak.found else BROKEN
    return VIOLATED if results['violations'] else CLEAN


def main(argv):
    """Read the command line and run a soak. Returns the exit code; wrong options end in SystemExit(2)."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.CRITICAL)
    return soaked(arguments, arguments.seed or secrets.token_hex(4))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
