"""The command line of the copier."""
import argparse
import ctypes
import os
import signal
import sys

from .checkpoint import Busy, Checkpoint, lock
from .compare import Comparison, Differs
from .duplicate import Duplicate, looks_copied
from .link import Failure, Link
from .loop import Commands, Loop, die, say

_PR_SET_PDEATHSIG = 1


def main():
    """Do what the command line says; returns the exit code."""
    sys.excepthook = die
    options = _parser().parse_args()
    if not _dies_with(options.parent):
        return 2
    try:
        return options.do(options, Commands(options.rate))
    except Failure as error:
        say(ended='error', end=error.end, errno=error.errno, error=str(error), lost=error.lost)
    except (OSError, Busy) as error:
        say(ended='error', end='', errno=0, error=str(error))
    return 1


def _copy(options, commands):
    held = lock(options.checkpoint)
    source, destination, loop = _ends(options, commands)
    checkpoint = Checkpoint(options.checkpoint, options.identity, source.size)
    start, zeroed = checkpoint.read(), options.zeroed
    if start and not looks_copied(source, destination, start):
        start, zeroed = 0, False
    loop.total, loop.done = source.size, start
    Duplicate(source, destination, checkpoint, loop, start, zeroed, options.record).run()
    loop.tell()
    loop.close()
    say(ended='complete', moved=loop.moved, start=start)
    held.close()
    return 0


def _verify(options, commands):
    source, destination, loop = _ends(options, commands)
    try:
        digest, compared = Comparison(source, destination, loop).run(options.samples, options.seed)
    except Differs as error:
        say(ended='different', offset=error.args[0])
        return 3
    loop.tell()
    loop.close()
    say(ended='complete', digest=digest, compared=compared)
    return 0


def _ends(options, commands):
    source, destination = Link('source', options.source), Link('destination', options.destination)
    loop = Loop((source, destination), commands, options.patience)
    if destination.size < source.size:
        raise Failure('', f'the destination has {destination.size} bytes, the source {source.size}')
    return source, destination, loop


def _dies_with(parent):
    """Have the kernel kill this process when the thread that began it ends. parent: process id that is expected, 0 is nobody.
    Returns False when that one has gone already."""
    if parent:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return not parent or os.getppid() == parent


def _parser():
    parser = argparse.ArgumentParser(prog='copier', description=sys.modules[__package__].__doc__.split('\n')[0])
    sub = parser.add_subparsers(required=True)
    for name, do in (('copy', _copy), ('verify', _verify)):
        one = sub.add_parser(name)
        one.set_defaults(do=do)
        one.add_argument('source')
        one.add_argument('destination')
        one.add_argument('--rate', type=int, default=0)
        one.add_argument('--parent', type=int, default=0)
        one.add_argument('--patience', type=float, default=60.0)
        if do is _copy:
            one.add_argument('checkpoint')
            one.add_argument('--identity', required=True)
            one.add_argument('--zeroed', action='store_true')
            one.add_argument('--record', type=float, default=1.0)
        else:
            one.add_argument('--samples', type=int, default=0)
            one.add_argument('--seed', default='')
    return parser
