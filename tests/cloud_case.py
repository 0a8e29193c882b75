"""What tests in a real cloud share: one cloud for a class, a guest that many tests move about, and the assertions after every migration."""
import contextlib

import fixtures
import testtools
from testtools.content import text_content

from migrator.states import Status
from tests.cloud import SILENCE, SMALL_DISK, Cloud
from tests.lab import LabError, wait_until


class CloudCase(testtools.TestCase):
    """One cloud serves all tests of a class, as a real one does; a test that fails gets the next one a new cloud.

    After each test everything is as before: daemons and libvirtds run, and nothing is on the hosts but the standing guest.
    """

    #: Arguments of Cloud.
    arguments: dict = {}
    timeout = 240
    cloud = None

    @classmethod
    def setUpClass(cls):
        cls.cloud, cls._standing = None, None
        cls.addClassCleanup(cls._drop_cloud)
        super().setUpClass()

    @classmethod
    def _drop_cloud(cls):
        cloud, cls.cloud, cls._standing = cls.cloud, None, None
        if cloud is not None:
            cloud.cleanUp()

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.Timeout(self.timeout, gentle=True))
        if self.cloud is None:
            cloud = Cloud(**self.arguments)
            cloud.setUp()
            type(self).cloud = cloud
        self.api, self.lab = self.cloud.api, self.cloud.lab
        self.failed = False
        self.addOnException(self._note_failure)
        self.addCleanup(self._tidy)

    def _note_failure(self, _info):
        if not self.failed and self.cloud is not None:
            for name, daemon in self.cloud.daemons.items():
                self.addDetailUniqueName(f'log of {name}', text_content(daemon.output()[-12000:]))
        self.failed = True

    def _tidy(self):
        """Leave nothing behind, and say so if that does not work; after a failure all of it goes."""
        if self.failed:
            return self._drop_cloud()
        try:
            self._tidy_after_success()
        except BaseException:
            self._drop_cloud()
            raise
        return None

    def _tidy_after_success(self):
        cloud = self.cloud
        cloud.kill_file.unlink(missing_ok=True)
        for host in cloud.hosts.values():
            if host.libvirtd_pid is None:
                host.start_libvirtd()
                host.wait_ready()
        cloud.restart_dead()
        cloud.wait_hosts_up()
        standing = self._standing.uuid if self._standing else 'none'
        for guest in [guest for guest in cloud.guests.values() if guest.uuid != standing]:
            cloud.remove(guest)
        left = [line for line in cloud.leftovers() if standing not in line]
        if left:
            raise AssertionError(f'left after the test: {left}')

    # --- given ---

    def standing(self):
        """Give (guest, where it runs, the other host): a writer with one small qcow2 disk, which the tests of a class share."""
        if self._standing is None:
            type(self)._standing = self.cloud.boot(next(iter(self.cloud.hosts)), disks=[{'target': 'vda', 'size': SMALL_DISK}])
        here = self.api.instance_show(self._standing.uuid)['host']
        return self._standing, here, next(name for name in self.cloud.hosts if name != here)

    @contextlib.contextmanager
    def copying(self, guest, destination, what='Memory', bandwidth_mib=2):
        """A live migration that is copying what is named, 'Memory' or before that 'File'. Gives the migration."""
        migration = self.api.live_migrate(guest.uuid, destination, options={'bandwidth_mib': bandwidth_mib})
        self.cloud.await_copying(guest, migration['source_host'], what)
        yield migration

    # --- then ---

    def assert_outcome(self, ended, guest, host, status=Status.COMPLETED, state='running', silence=SILENCE):
        """The migration ended in `status` and tells why; the guest is `state` at `host`, whole, and nothing of it is elsewhere."""
        self.assertEqual((status, host), (ended['status'], self.api.instance_show(guest.uuid)['host']), ended)
        self.assertEqual([], self.cloud.settled(guest, host, state), ended)
        self.assert_timeline(ended)
        if state == 'running':
            self.cloud.check_life(guest, host, silence)
        else:
            self.cloud.check_disk(guest, host)

    def assert_timeline(self, ended):
        """Every line of the timeline has its reason, they are in order, and the last one is the end."""
        events = ended['events']
        self.assertGreater(len(events), 1, ended)
        self.assertEqual([], [event for event in events if not event['reason'] or not event['at']], ended)
        self.assertEqual(sorted(event['at'] for event in events), [event['at'] for event in events])
        self.assertEqual(ended['status'], events[-1]['status'], ended)
        self.assertTrue(ended['reason'], ended)
        self.assertEqual(ended['status'] != Status.COMPLETED, bool(ended['error']), ended)
        self.assertFalse(ended['needs_attention'], ended)

    def assert_nothing_leaked(self):
        """The audit could ask every host and names nothing, and no debt is open."""
        def unnamed():
            said = self.api.audit()
            return [*said['findings'], *said['debts'], *said['not_audited']]
        try:
            self.wait_for(lambda: not unnamed(), 'an audit without findings', 12)
        except LabError:
            self.assertEqual([], unnamed())

    def assert_unchanged(self, guest, host):
        """A refused request has left no workflow, no lock and the guest where it was."""
        self.assertEqual([], self.cloud.settled(guest, host))

    @staticmethod
    def wait_for(condition, what, timeout=40):
        """Wait until `condition` gives something true; returns it."""
        return wait_until(condition, timeout, what, interval=0.1)
