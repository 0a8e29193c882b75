"""A volume driver and a copier that do what a test says, and a manager around them."""
import os
import uuid

import fixtures
import testtools

from migrator import concurrency, exceptions
from migrator.rpc import facts, server
from migrator.rpc import volume_facts as vf
from migrator.rpc.agent import OperationServer
from migrator.rpc.journal import Journal
from migrator.states import LunState
from migrator.volume.backends import Backend, Backends
from migrator.volume.driver import VolumeDriver
from migrator.volume.manager import VolumeManager
from tests.unit.rpc import support
from tests.unit.script import Script
from tests.unit.volume import samples
from tests.unit.volume.samples import MIB


class ScriptedArray(VolumeDriver):
    """Does nothing but what its script says."""

    capabilities = ('scripted',)

    def __init__(self, conf=None, host='', backend=''):
        super().__init__(conf, host, backend)
        self.script = Script()

    def start(self):
        self.script.do('start')

    def stop(self):
        self.script.do('stop')

    def pools(self):
        return self.script.do('pools', default=(vf.Pool('fast', 100 * MIB, 60 * MIB), vf.Pool('slow', 50 * MIB, 50 * MIB)))

    def list(self):
        return self.script.do('list', default=())

    def show(self, pool, lun):
        return self.script.do('show', pool, lun, default=vf.Lun(pool, lun, LunState.READY, 32 * MIB, owner=samples.MIGRATION))

    def create(self, pool, lun, size, owner):
        return self.script.do('create', pool, lun, size, owner, default={'lun': lun})

    def delete(self, pool, lun, owner=''):
        return self.script.do('delete', pool, lun, owner, default={})

    def extend(self, pool, lun, size):
        return self.script.do('extend', pool, lun, size, default={})

    def export(self, pool, lun, export, writable):
        return self.script.do('export', pool, lun, export, writable, default=vf.Connection(f'nbd://a:1/{export}', writable, 32 * MIB))

    def unexport(self, pool, lun, export, force=False):
        return self.script.do('unexport', pool, lun, export, force, default={})

    def migrate_volume(self, lun, target):
        return self.script.do('migrate_volume', lun, target, default=(False, {}))

    def migrate_volume_target(self, lun, connection, target):
        return self.script.do('migrate_volume_target', lun, connection, target, default=(True, True, {'locator': {'lun': target.lun}}))

    def set_mirror_rate(self, pool, lun, bytes_per_second):
        return self.script.do('set_mirror_rate', pool, lun, bytes_per_second, default=True)

    def interrupt(self, migration_id):
        self.script.do('interrupt', migration_id)
        for name in ('migrate_volume', 'migrate_volume_target'):
            self.script.results[name] = exceptions.MigrationAborted('it is not wanted')
        self.script.release()

    def complete_migration_target(self, target):
        return self.script.do('complete_migration_target', target, default={})

    def cancel_migration_target(self, target):
        return self.script.do('cancel_migration_target', target, default={})

    def progress(self, pool, lun):
        return self.script.do('progress', pool, lun, default=vf.Progress(True, 100, 40))


class ScriptedCopying:
    """In place of volume.copying.Copying."""

    def __init__(self):
        self.script = Script()
        self.jobs = {}                   # migration id -> native event that ends it by cancellation
        self.rates = []

    def copy(self, migration_id, source, destination, rate=0, zeroed=False):
        return self._run(migration_id, 'copy', source, destination, rate, zeroed, default={'bytes': 7, 'seconds': 0.5})

    def verify(self, migration_id, source, destination, how='sampled', rate=0):
        return self._run(migration_id, 'verify', source, destination, how, rate, default={'digest': 'd', 'how': how})

    def _run(self, migration_id, *words, default):
        cancelled = self.jobs[migration_id] = concurrency.native_event()
        try:
            result = self.script.do(*words, default=default)
            if cancelled.is_set():
                raise exceptions.MigrationAborted('the copy was cancelled')
            return result
        finally:
            del self.jobs[migration_id]

    def forget(self, migration_id):
        self.script.do('forget', migration_id)

    def age(self, migration_id):
        return self.script.do('age', migration_id, default=0.0)

    def kept(self):
        return self.script.do('kept', default=[])

    def running(self):
        return sorted(self.jobs)

    def progress(self, migration_id):
        return vf.Progress(True, 10, 3) if migration_id in self.jobs else vf.Progress()

    def set_rate(self, migration_id, rate):
        self.rates.append(rate)
        return migration_id in self.jobs

    def cancel(self, migration_id):
        job = self.jobs.get(migration_id)
        if job is not None:
            job.set()
            self.script.release()
        return job is not None


class ManagerTestCase(testtools.TestCase):
    """A manager of the agent of host beta with two scripted arrays, old and new."""

    host = 'beta'

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.old, self.new = ScriptedArray(), ScriptedArray()
        self.backends = Backends([Backend('old', self.old, 'scripted', ('plain',)), Backend('new', self.new, 'scripted', array_id='a-1')])
        for backend in self.backends.all():
            backend.start()
            backend._driver.script.calls.clear()
        self.copying = ScriptedCopying()
        for script in (self.old.script, self.new.script, self.copying.script):
            self.addCleanup(script.release)
        self.conductor = support.ListeningConductor()
        self.journal = Journal(os.path.join(self.useFixture(fixtures.TempDir()).path, 'journal.db'))
        self.addCleanup(self.journal.close)
        self.operations = OperationServer(self.journal, self.conductor, self.host, 'process-1', 'boot-1', 8, 0.05)
        self.addCleanup(self.operations.stop)
        self.operations.start()
        self.manager = self.make_manager('process-1')
        self.source = vf.LunRef(self.host, 'old', 'slow', 'volume-1')
        self.plan = samples.plan(source=self.source, connection=samples.CONNECTION)

    def make_manager(self, process_id, credentials=''):
        return VolumeManager(self.backends, self.copying, self.operations, self.journal, self.host, process_id, credentials)

    def ask(self, name, **arguments):
        """Call a method as the dispatcher does; gives its answer. Raises the typed error."""
        try:
            return getattr(self.manager, name)(support.new_context(), **arguments)
        except server.rpc.dispatcher.ExpectedException as expected:
            raise expected.exc_info[1] from None

    def begin(self, name, attempt=1, epoch=1, **arguments):
        """Begin an operation, with the plan unless it has other arguments."""
        arguments = arguments or {'plan': facts.to_wire(self.plan)}
        envelope = samples.envelope(name, attempt, epoch)
        return facts.from_wire(facts.Report, self.ask(name, envelope=facts.to_wire(envelope), **arguments))

    def outcome(self, name, **values):
        """Begin it and give what it reports."""
        self.begin(name, **values)
        return self.conductor.next_report()

    @staticmethod
    def new_id():
        """Make up an id."""
        return str(uuid.uuid4())
