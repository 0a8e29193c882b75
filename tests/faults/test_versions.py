"""Daemons of two versions side by side: real processes, a real broker and database. `newer` is the next minor version."""
import contextlib

from migrator import exceptions
from migrator.states import Status
from tests import services
from tests.cluster import Cluster
from tests.faults.class_fixtures import ClassFixtures
from tests.faults.newer import HINT, NEXT, NOW

NEW, OLD = 'one', 'two'


class TestSideBySide(ClassFixtures):
    """A newer conductor with an agent of its own version and one of the old."""

    options = {'fake': {'migration_seconds': 3}}

    @classmethod
    def setUpClass(cls):
        urls = [cls.use(services.Broker()).url, cls.use(services.Database('mysql')).url]
        cls.cluster = cls.use(Cluster(*urls, hosts=(NEW, OLD), options=cls.options))
        for name in (NEW, 'conductor-0'):
            cls.upgrade(name)

    @classmethod
    def upgrade(cls, name):
        """Restart a daemon in another version, as an upgrade does."""
        daemon = cls.cluster.daemons[name]
        kind = 'conductor' if name.startswith('conductor') else 'compute'
        daemon.terminate(60)
        daemon.argv = [daemon.argv[0], '-m', 'tests.faults.newer', kind, *daemon.argv[-2:]]
        cls.cluster.restart(daemon)

    def cap(self, version):
        """Wait until the conductor sends requests of that version and no newer one."""
        conductor = self.cluster.daemons['conductor-0']

        def now():
            said = [line for line in conductor.output().splitlines() if 'requests to compute agents are of version' in line]
            return (said[-1].split(' of version ')[1].split()[0] if said else '1.0') == version
        self.cluster.wait_for(now, f'requests of version {version}', 40)

    def moved(self, guest, destination):
        """Migrate a guest; fails unless it completes and nothing is left."""
        shown = self.cluster.ended(self.cluster.api.live_migrate(guest, destination))
        self.assertEqual(Status.COMPLETED, shown['status'], shown)
        with contextlib.suppress(Exception):
            self.cluster.wait_for(lambda: not self.cluster.violations(guest, destination), 'no violation', 5)
        self.assertEqual([], self.cluster.violations(guest, destination))

    def test_an_upgrade_from_old_agents_to_new_ones(self):
        """Given a newer conductor, when one agent is old, then nothing new is said to any; when it is upgraded too, then it is."""
        newer = self.cluster.daemons[NEW]
        self.cluster.wait_for(lambda: {h['name']: h['rpc_version'] for h in self.cluster.api.hosts()} == {NEW: NEXT, OLD: NOW},
                              'the new version of one agent')
        self.cap(NOW)
        guest = self.cluster.create(NEW)
        self.moved(guest, OLD)
        self.moved(guest, NEW)
        self.assertIn('hint: none', newer.output())
        self.assertNotIn(HINT, newer.output())
        self.too_new_changes_nothing(guest)
        self.upgrade(OLD)
        self.cap(NEXT)
        self.moved(guest, NEW)
        self.assertIn(f'hint: {HINT}', newer.output())

    def too_new_changes_nothing(self, guest):
        """A method that is newer than the cap is refused by name, and the migration goes on as if it had not been asked for."""
        migration = self.cluster.api.live_migrate(guest, OLD)
        self.cluster.wait_for(lambda: self.cluster.world.jobs(guest)[-1]['state'] == 'active', 'the job')
        with self.assertRaises(exceptions.NotPossible) as caught:
            self.cluster.api.force_complete(migration['id'])
        self.assertIn('upgraded', str(caught.exception))
        shown = self.cluster.ended(migration)
        self.assertEqual(Status.COMPLETED, shown['status'])
        self.assertNotIn('force_complete', [e['what'] for e in shown['events']])
        self.assertNotIn('greeted', self.cluster.daemons[NEW].output())


class TestPinned(TestSideBySide):
    """The version is pinned by an option, whatever the agents announce."""

    options = {'fake': {'migration_seconds': 3}, 'upgrade_levels': {'compute': '1.0'}}

    def test_an_upgrade_from_old_agents_to_new_ones(self):
        """Given a pinned version, when all daemons are newer, then nothing new is said."""
        self.upgrade(OLD)
        self.cluster.wait_for(lambda: {h['rpc_version'] for h in self.cluster.api.hosts()} == {NEXT}, 'both agents newer')
        guest = self.cluster.create(OLD)
        self.moved(guest, NEW)
        self.assertIn('hint: none', self.cluster.daemons[NEW].output())
        self.assertNotIn(HINT, self.cluster.daemons[NEW].output())
