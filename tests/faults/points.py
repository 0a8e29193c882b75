"""Runs a real daemon that kills itself with SIGKILL at one named line of its work, once.

    python -m tests.faults.points conductor --config-file …        (or compute, or volume)

The environment variable MIGRATOR_KILL_FILE names a file. While it holds a line `POINT KEY NAME`, the daemon of that name (in
MIGRATOR_NAME) that comes to that point with that key removes the file and dies there; with `POINT KEY NAME SIGNAL` it
sends itself that one. The name * is whichever comes first. What is wrapped is the product's own code, unchanged; it has no hooks.

Conductor's points: `before-commit`, `after-commit` (nothing sent yet), `after-send`; the key is the kind of action and the step, such
as `start:pre_live_migration`, `observe:live_migration`, `call:check_can_live_migrate_destination`, `end:…`.
Agent's points: `received` (not in the journal yet), `accepted` (in the journal, neither acknowledged nor begun), `begun`, `done` (not
in the journal yet), `recorded` (not reported yet), `reported` (acknowledged, not noted yet); the key is the method. `called` is the
entry of a check. For a volume agent also the switch of a take-over, where clients are held back: `before-marker` (everything is in the
local file, which no record says yet), `behind-marker`, and `switched` (the array has gone on, the agent has noted nothing); the key is
`switch`.
"""
import functools
import os
import pathlib
import signal
import sys
import time
import types

#: Names a file with two numbers of seconds: by how much this daemon's time of day is wrong, now and whenever the file is replaced, and how
#: much longer its host has been up than the machine. Only Python's clocks are shifted; simulated hypervisors share the machine's.
CLOCK_FILE = 'MIGRATOR_CLOCK_FILE'


def reach(point, key):
    """Die here if this is the line that the file names."""
    path = pathlib.Path(os.environ['MIGRATOR_KILL_FILE'])
    try:
        wanted = path.read_text().split()
    except FileNotFoundError:
        return
    if wanted[:2] == [point, key] and wanted[2] in ('*', os.environ['MIGRATOR_NAME']):
        try:
            path.rename(path.with_name(f'reached-by-{os.environ["MIGRATOR_NAME"]}'))
        except FileNotFoundError:
            return      # another daemon was first
        os.kill(os.getpid(), int(wanted[3]) if len(wanted) > 3 else signal.SIGKILL)


def wrap(owner, name, before=None, after=None):
    """Put `before(args)` and `after(args, result)` around a function."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        if before:
            before(args)
        result = original(*args, **kwargs)
        if after:
            after(args, result)
        return result
    setattr(owner, name, wrapped)


def key_of(transition):
    """Name what a transition is about to do."""
    return f'{transition.action.kind}:{transition.action.cursor.step}'


def arm_conductor():
    """Put the points into the engine."""
    from migrator.conductor.engine import Engine

    def committing(_args, transition):
        if transition is not None:
            reach('before-commit', key_of(transition))
    wrap(Engine, 'transit', after=committing)
    wrap(Engine, 'perform', before=lambda args: reach('after-commit', key_of(args[2])),
         after=lambda args, _result: reach('after-send', key_of(args[2])))


def arm_agent():
    """Put the points into the agents' half of call-then-spawn."""
    from migrator.rpc.agent import OperationServer
    from migrator.rpc.conductor import AgentToConductorAPI
    from migrator.rpc.journal import Journal

    wrap(OperationServer, 'accept', before=lambda args: reach('received', args[2]))
    wrap(Journal, 'begin', after=lambda args, _result: reach('accepted', args[1].method))
    wrap(OperationServer, '_outcome', before=lambda args: reach('begun', args[1].method),
         after=lambda args, _result: reach('done', args[1].method))
    wrap(AgentToConductorAPI, 'operation_finished', before=lambda args: reach('recorded', args[2].op_id.split('/')[1]),
         after=lambda args, _result: reach('reported', args[2].op_id.split('/')[1]))


def arm_compute():
    """Put the points into the compute agent's answers."""
    from migrator.compute.manager import ComputeManager

    wrap(ComputeManager, 'locate_instance', before=lambda _args: reach('called', 'locate_instance'))
    for check in ('check_can_live_migrate_destination', 'check_can_live_migrate_source'):
        arm_check(check)


def arm_volume():
    """Put the points into the volume agent's answers, and into the switch of its take-overs."""
    from migrator.volume.array import Array
    from migrator.volume.manager import VolumeManager
    from migrator.volume.records import Records

    def at_marker(point, record):
        if record.mirror is not None and record.mirror.local_is_complete:
            reach(point, 'switch')

    wrap(Records, 'put', before=lambda args: at_marker('before-marker', args[1]), after=lambda args, _: at_marker('behind-marker', args[1]))
    wrap(Array, 'switch', after=lambda _args, _result: reach('switched', 'switch'))
    for name in ('locate_volume', 'check_can_migrate_volume_target', 'check_can_migrate_volume_source'):
        wrap(VolumeManager, name, before=lambda _args, name=name: reach('called', name))


def arm_check(name):
    """Die at the entry of a check, in the driver's name."""
    from migrator.compute import manager
    original = manager.run_driver

    @functools.wraps(original)
    def run_driver(fn, *args):
        if getattr(fn, '__name__', '') == name:
            reach('called', name)
        return original(fn, *args)
    manager.run_driver = run_driver


def shift_clocks(path):
    """Shift this process's clocks, before anything else has looked at them. Returns the machine's own."""
    own = {'time': time.time, 'monotonic': time.monotonic}
    uptime = float(path.read_text().split()[1])
    time.time = lambda: own['time']() + float(path.read_text().split()[0])
    time.monotonic = lambda: own['monotonic']() + uptime
    return own


def leave_hypervisors(own):
    """Let the simulated hypervisors, which are no part of the daemon, go by the machine's clocks."""
    from migrator.compute.drivers.fake import driver, jobs, watch, world
    for module in (driver, jobs, watch, world):
        module.time = types.SimpleNamespace(**{**vars(time), **own})


def main():
    """Start the daemon with its points armed."""
    clocks = shift_clocks(pathlib.Path(os.environ[CLOCK_FILE])) if CLOCK_FILE in os.environ else {}
    from migrator import concurrency
    concurrency.setup()
    if clocks:
        leave_hypervisors(clocks)
    kind, *arguments = sys.argv[1:]
    if kind == 'conductor':
        arm_conductor()
        from migrator.cmd import conductor as program
    elif kind == 'volume':
        arm_agent()
        arm_volume()
        from migrator.cmd import volume as program
    else:
        arm_agent()
        arm_compute()
        from migrator.cmd import compute as program
    program.main(arguments)


if __name__ == '__main__':
    main()
