"""Daemons of two versions side by side: real processes, a real broker and database. `newer` is the next minor version."""
from migrator import exceptions
from migrator.states import Status
from tests import services
from tests.cluster import Cluster
from tests.faults.class_fixtures import ClassFixtures
from tests.faults.newer import HINT, NEXT, NOW
from tests.faults.outages import FULL

NEW, OLD = 'one', 'two'


def upgrade(cluster, name):
    """Restart a daemon in another version, as an upgrade does."""
    daemon = cluster.daemons[name]
    kind = 'conductor' if name.startswith('conductor') else 'compute'
    daemon.terminate(60)
    daemon.argv = [daemon.argv[0], '-m', 'tests.faults.newer', kind, *daemon.argv[-2:]]
    cluster.restart(daemon)


def assert_settled(test, cluster, guest, at):
    """Fail unless a guest is at a host, nothing else of it is anywhere, and nothing is left over."""
    test.assertEqual([], cluster.settled(guest, at))
    test.assertEqual([], cluster.audited())


class TestSideBySide(ClassFixtures):
    """A newer conductor with an agent of its own version and one of the old."""

    options = {'fake': {'migration_seconds': 3}}

    @classmethod
    def setUpClass(cls):
        urls = [cls.use(services.Broker()).url, cls.use(services.Database('mysql')).url]
        cls.cluster = cls.use(Cluster(*urls, hosts=(NEW, OLD), options=cls.options))
        for name in (NEW, 'conductor-0'):
            upgrade(cls.cluster, name)

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
        assert_settled(self, self.cluster, guest, destination)

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
        upgrade(self.cluster, OLD)
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


class TestConductors(ClassFixtures):
    """Agents of both versions, a newer conductor, and an old one that does not know what is new."""

    database = 'mysql'

    @classmethod
    def setUpClass(cls):
        urls = [cls.use(services.Broker()).url, cls.use(services.Database(cls.database)).url]
        cls.cluster = cls.use(Cluster(*urls, hosts=(NEW, OLD), conductors=2, options={'fake': {'migration_seconds': 1}}))
        for name in (NEW, 'conductor-0'):
            upgrade(cls.cluster, name)

    def moved_about(self, number):
        """Have guests moved there and back at the same time; fails unless each move completes once and nothing is left."""
        guests = [self.cluster.create(NEW) for _ in range(number)]
        for there in (OLD, NEW):
            for migration in [self.cluster.api.live_migrate(guest, there) for guest in guests]:
                shown = self.cluster.ended(migration)
                self.assertEqual(Status.COMPLETED, shown['status'], shown)
        for guest in guests:
            assert_settled(self, self.cluster, guest, NEW)
            self.assertEqual(2, len(self.cluster.world.history(guest, 'live_migration')))

    def test_an_old_conductor_goes_on_with_what_a_newer_one_has_begun(self):
        """Given both conductors share the work, then all moves complete; given the newer one is gone, the old one ends what it began."""
        self.moved_about(6)
        for conductor in ('conductor-0', 'conductor-1'):
            self.assertIn('live_migration of', self.cluster.daemons[conductor].output(), 'it had no part in it')
        guests = [self.cluster.create(NEW) for _ in range(4)]
        migrations = [self.cluster.api.live_migrate(guest, OLD) for guest in guests]
        self.cluster.daemons['conductor-0'].kill()
        for guest, migration in zip(guests, migrations, strict=True):
            shown = self.cluster.ended(migration)
            self.assertEqual(Status.COMPLETED, shown['status'], shown)
            assert_settled(self, self.cluster, guest, OLD)
        self.moved_about(2)
        self.cluster.restart(self.cluster.daemons['conductor-0'])


if FULL:
    class TestConductorsOnPostgreSQL(TestConductors):
        """The same on PostgreSQL."""

        database = 'postgresql'


class TestPinned(TestSideBySide):
    """The version is pinned by an option, whatever the agents announce."""

    options = {'fake': {'migration_seconds': 3}, 'upgrade_levels': {'compute': '1.0'}}

    def test_an_upgrade_from_old_agents_to_new_ones(self):
        """Given a pinned version, when all daemons are newer, then nothing new is said."""
        upgrade(self.cluster, OLD)
        self.cluster.wait_for(lambda: {h['rpc_version'] for h in self.cluster.api.hosts()} == {NEXT}, 'both agents newer')
        guest = self.cluster.create(OLD)
        self.moved(guest, NEW)
        self.assertIn('hint: none', self.cluster.daemons[NEW].output())
        self.assertNotIn(HINT, self.cluster.daemons[NEW].output())
