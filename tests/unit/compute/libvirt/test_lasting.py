"""libvirt's call of a migration that does not return although the guest has ended: a scripted guest, and links that are cut or not."""
import pathlib
import time
from unittest import mock

import fixtures
import libvirt
import testtools

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt import connection, folders, guests, lasting, migration, observe, storage
from tests.unit.compute.libvirt.test_hold import MIGRATION, PLAN, RUNNING, UUID, XML

PATIENCE = 20
HELD = '(held by monitor=remoteDispatchDomainMigratePerform3Params)'


def error(code, words):
    """An error of libvirt with this code."""
    made = libvirt.libvirtError(words)
    made.err = (code, 10, words, 2, '', None, None, -1, -1)
    return made


class Links:
    """Stands for links.Links; `cut` is what it does."""

    def __init__(self, cut):
        self.wanted, self.looked_at, self._cut = True, 0, cut

    def look(self):
        self.looked_at += 1
        self.wanted = False

    def cut(self):
        return self._cut()


class Domain:
    """A guest whose migration returns when it is let; `then` is called within it."""

    def __init__(self, then):
        self.then, self.active, self.returns = then, True, concurrency.native_event()
        self.fails, self.suspended = True, False

    def migrateToURI3(self, *_):
        self.then()
        if not self.returns.wait(PATIENCE):
            raise AssertionError('the test has let nothing return')
        if self.fails:
            raise libvirt.libvirtError('operation failed: domain is not running')

    def suspend(self):
        self.suspended = True

    def state(self):
        return RUNNING if self.active else [libvirt.VIR_DOMAIN_SHUTOFF, 1]

    def jobStats(self):
        return {'type': libvirt.VIR_DOMAIN_JOB_NONE}

    def isActive(self):
        return self.active

    def XMLDesc(self, _flags):
        return XML


class LastingTest(testtools.TestCase):
    """Given a guest that ends during the call, or does not."""

    def setUp(self):
        super().setUp()
        for name, seconds in (('GRACE_SECONDS', 0.3), ('HANDED_OVER_SECONDS', 0.9), ('_LOOK_SECONDS', 0.02), ('_WOKEN_SECONDS', 5),
                              ('_AGAIN_SECONDS', 0.05)):
            self.useFixture(fixtures.MonkeyPatch(f'migrator.compute.drivers.libvirt.lasting.{name}', seconds))
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        place = storage.Storage(str(root / 'i'), [], str(root / 'state'), 'alpha')
        place.start()
        self.migration = migration.Migration(place, folders.Folders(place), observe.Observer(None, None, place))
        self.guests = guests.Guests(None, place, folders.Folders(place), observe.Observer(None, None, place))
        self.connection = mock.Mock()
        self.domain = Domain(self.power_off)
        self.connection.lookupByUUIDString.return_value = self.domain
        self.links = Links(lambda: False)
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.drivers.libvirt.links.Links', lambda uri: self.links))
        self.log = self.useFixture(fixtures.FakeLogger())
        self.call = lasting.LastingCall('alpha', PLAN.connection_uri, lambda: True)
        self.addCleanup(self.end)

    def end(self):
        """Let the call return, and wait for what its thread says, so that it says nothing in the next test."""
        self.domain.returns.set()
        self.until(lambda: not self.call.left_behind or 'nobody waited for' in self.log.output)

    def tell(self, event, detail):
        """Give a lifecycle event to whoever listens."""
        for call in self.connection.domainEventRegisterAny.call_args_list:
            if call.args[1] == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:
                call.args[2](None, None, event, detail, None)

    def power_off(self):
        """The guest is copied for a while, and ends."""
        self.until(lambda: not self.links.wanted)
        self.domain.active = False
        self.tell(libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)

    @staticmethod
    def until(condition):
        """Wait until something is so."""
        ends = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > ends:
                raise AssertionError('it did not come to that')
            concurrency.native_sleep(0.01)

    def migrate(self):
        """Run the migration as the driver does."""
        return concurrency.run_native(self.call.run, self.migration.migrate, self.connection, PLAN,
                                      {'migration_id': MIGRATION}, self.call)

    def failed(self):
        """Run the migration, which fails; give the error's words."""
        return str(self.assertRaises(exceptions.DriverError, self.migrate))

    def test_a_call_that_never_returns_is_left_behind_in_words(self):
        """When it returns after all, that is logged, and the guest, which may have been started since, is not touched."""
        said = self.failed()
        self.assertIn('the guest stopped at alpha', said)
        self.assertIn('Restart libvirtd at alpha', said)
        self.domain.active = True
        self.tell(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
        self.domain.returns.set()
        self.until(lambda: 'nobody waited for' in self.log.output)
        self.assertIn('domain is not running', self.log.output)
        self.assertFalse(self.domain.suspended)

    def test_a_call_that_is_woken_says_why_it_had_to_be(self):
        cut = []

        def wake():
            cut.append(time.monotonic())
            self.domain.returns.set()
            return True
        self.links = Links(wake)
        said = self.failed()
        self.assertIn('the guest stopped at alpha', said)
        self.assertIn('domain is not running', said)
        self.assertNotIn('Restart', said)
        self.assertEqual(1, len(cut))
        self.assertNotIn('nobody waited for', self.log.output)

    def test_one_that_was_left_behind_is_woken_as_soon_as_that_can_be_done(self):
        known = concurrency.native_event()

        def wake():
            if known.is_set():
                self.domain.returns.set()
            return known.is_set()
        self.links = Links(wake)
        self.assertIn('Restart libvirtd', self.failed())
        known.set()
        self.until(lambda: 'nobody waited for' in self.log.output)

    def test_a_call_that_ends_soon_after_the_guest_is_not_disturbed(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.drivers.libvirt.lasting.GRACE_SECONDS', PATIENCE))
        self.links = Links(lambda: self.fail('nothing hangs'))

        def soon():
            self.power_off()
            self.domain.returns.set()
        self.domain.then = soon
        self.assertIn('domain is not running', self.failed())

    def test_after_the_hand_over_the_connection_stays_and_the_call_has_more_time(self):
        """For then it is about the guest at the destination, which may begin to run."""
        self.links = Links(lambda: self.fail('it may be what has the destination run the guest'))

        def handed_over():
            self.tell(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
            self.power_off()
        self.domain.then = handed_over
        begun = time.monotonic()
        self.assertIn('the guest stopped at alpha', self.failed())
        self.assertGreater(time.monotonic() - begun, 0.9)

    def test_a_guest_that_has_left_has_not_ended(self):
        """libvirt says that it stopped here when it has arrived; the call may take its time after that."""
        def leave():
            self.tell(libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED)
            concurrency.native_sleep(0.6)
            self.domain.fails = False
            self.domain.returns.set()
        self.domain.then = leave
        self.assertIn('downtime_ms', self.migrate())

    def test_the_connection_is_looked_for_once_the_guest_is_copied_and_only_once(self):
        asked = []
        self.call = lasting.LastingCall('alpha', PLAN.connection_uri, lambda: asked.append(1) or len(asked) > 2)
        self.failed()
        self.assertEqual((3, 1), (len(asked), self.links.looked_at))

    def refuse(self, code, words):
        """Let libvirt refuse to start and to undefine the guest, which is off."""
        def refused(*_):
            raise error(code, words)
        self.domain.active = False
        self.domain.create = self.domain.undefineFlags = refused
        self.domain.isPersistent = lambda: True

    def test_starting_or_deleting_such_a_guest_tells_what_to_do(self):
        """libvirt's words of its lock are of no use to anybody."""
        self.refuse(libvirt.VIR_ERR_OPERATION_TIMEOUT, f'cannot acquire state change lock {HELD}')
        for act in (self.guests.start, self.guests.delete):
            said = str(self.assertRaises(exceptions.DriverError, act, self.connection, UUID))
            self.assertIn('a migration during which the guest has stopped', said)
            self.assertIn('Restart libvirtd at alpha', said)
            self.assertNotIn('state change lock', said)

    def test_other_refusals_are_left_in_libvirts_words(self):
        for code, words in ((libvirt.VIR_ERR_OPERATION_TIMEOUT, '(held by monitor=remoteDispatchDomainBlockJobAbort)'),
                            (libvirt.VIR_ERR_INTERNAL_ERROR, HELD)):
            self.refuse(code, words)
            for act in (self.guests.start, self.guests.delete):
                self.assertIn(words, str(self.assertRaises(libvirt.libvirtError, act, self.connection, UUID)))


class ApartTest(testtools.TestCase):
    """The connection of a call that is left behind stays open until it returns, and is closed then."""

    def test_it_is_closed_by_the_thread_that_is_left(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.drivers.libvirt.lasting.GRACE_SECONDS', 0.1))
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.drivers.libvirt.lasting._LOOK_SECONDS', 0.02))
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.drivers.libvirt.connection._start_event_loop', lambda: None))
        log, opened, returns = self.useFixture(fixtures.FakeLogger()), [], concurrency.native_event()
        self.useFixture(fixtures.MonkeyPatch('libvirt.open', lambda uri: opened.append(mock.Mock()) or opened[-1]))
        self.addCleanup(returns.set)
        shared = connection.Connection('qemu:///system')
        shared.open()
        call = lasting.LastingCall('alpha', '', lambda: False)

        def hang(_connection):
            call.happened(libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)
            returns.wait(PATIENCE)
        self.assertRaises(exceptions.DriverError, concurrency.run_native, call.run, shared.run_apart, hang)
        self.assertFalse(opened[-1].close.called)
        returns.set()
        LastingTest.until(lambda: 'nobody waited for' in log.output)
        self.assertTrue(opened[-1].close.called)
