"""A client that answers from a script, and a way to run one command line and keep what it said."""
import dataclasses
import io

from migrator import exceptions
from migrator.cli.main import App
from tests import base

MIGRATION = '9f3c2a10-5b7e-4c1d-8a6f-0123456789ab'
OTHER = '9f3c2a10-5b7e-4c1d-8a6f-0123456789ac'
INSTANCE = 'cc31d982-c09c-495b-ae0a-73d37d82ef7c'


def migration(status='running', **values):
    """A migration's view as a conductor gives it."""
    view = {
        'id': MIGRATION, 'kind': 'live_migration', 'instance_uuid': INSTANCE, 'instance_name': 'web-1', 'source_host': 'host-a',
        'destination_host': 'host-b', 'status': status, 'step': 'live_migration', 'direction': 'forward',
        'reason': 'pre_live_migration done', 'error': '', 'no_return': False, 'progress': {}, 'request_id': 'r-1', 'user': 'alice',
        'abort_requested': False, 'needs_attention': False, 'created_at': '2026-01-31T12:00:00.123Z',
        'updated_at': '2026-01-31T12:00:01.456Z',
        'finished_at': '', 'statistics': {}, 'debts': [], 'events': [
            {'at': '2026-01-31T12:00:00.123Z', 'status': 'checking', 'step': 'check_can_live_migrate_destination', 'what': 'requested',
             'reason': 'source and destination are checked', 'user': 'alice', 'request_id': 'r-1'}]}
    return {**view, **values}


def host(name='host-a', **values):
    """A host's view."""
    view = {'name': name, 'state': 'up', 'enabled': True, 'disabled_reason': '', 'draining': False, 'instances': 3,
            'migrations': 1, 'debts': 0, 'last_seen': '2026-01-31T12:00:00.123Z', 'process_id': OTHER, 'rpc_version': '1.0',
            'hypervisor_name': f'{name}.example', 'hypervisor_type': 'QEMU', 'availability_zone': 'north',
            'hypervisor_version': 7002000, 'cpus': 32, 'memory_mib': 65536,
            'memory_free_mib': 1536}
    return {**view, **values}


def instance(name='web-1', **values):
    """An instance's view."""
    view = {'uuid': INSTANCE, 'name': name, 'host': 'host-a', 'state': 'running', 'memory_mib': 256, 'vcpus': 2, 'disks': [
        {'target': 'vda', 'kind': 'file', 'format': 'qcow2', 'size': 1 << 30, 'path': '/instances/web-1/vda.qcow2'}],
        'managed': True, 'note': '', 'locked_by': '', 'debts': 0, 'sighting': {}, 'host_state': 'up',
        'host_last_seen': '2026-01-31T12:00:00.123Z', 'host_silent_seconds': 2, 'updated_at': '2026-01-31T12:00:00.123Z'}
    return {**view, **values}


class Conductor:
    """Answers each method from `answers`: {name: value, exception, or list of those, one for each call and the last for ever}."""

    def __init__(self, answers):
        self.answers = {name: list(value) if isinstance(value, Answers) else [value] for name, value in answers.items()}
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, *args, *kwargs.values()))
            rest = self.answers[name]
            answer = rest.pop(0) if len(rest) > 1 else rest[0]
            if isinstance(answer, BaseException):
                raise answer
            return answer
        return call


class Answers(list):
    """Answers to call after call."""


@dataclasses.dataclass
class Result:
    """What a command line did."""

    code: int
    out: str
    err: str
    calls: list
    seconds: float


class Clock:
    """Time that passes only when somebody sleeps."""

    now = 1000.0

    def time(self):
        """Seconds."""
        return self.now

    def sleep(self, seconds):
        """Let them pass."""
        self.now += seconds


class CommandCase(base.TestCase):
    """Runs command lines."""

    def run_cli(self, *argv, **answers):
        """Run one. answers: what the conductor says to each method."""
        clock, out, err, conductor = Clock(), io.StringIO(), io.StringIO(), Conductor(answers)
        code = App(conductor, stdout=out, stderr=err, clock=clock.time, sleep=clock.sleep).run([str(arg) for arg in argv])
        return Result(code, out.getvalue(), err.getvalue(), conductor.calls, clock.now - Clock.now)

    def assert_refused(self, result, code, kind, words=''):
        """One readable line on standard error, nothing on standard output."""
        self.assertEqual((code, ''), (result.code, result.out), result)
        self.assertRegex(result.err, rf'\Amigrator: {kind}: [^\n]+\n\Z')
        self.assertIn(words, result.err)


#: Every error that a caller may see.
ERRORS = [value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, exceptions.MigratorError)]
