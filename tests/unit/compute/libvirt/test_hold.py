"""A migration that breaks after the hand-over: libvirt resumes the guest at the source, where it must not run before more is known."""
import pathlib
from unittest import mock

import fixtures
import libvirt
import testtools

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt import folders, lasting, migration, observe, storage
from migrator.rpc import facts
from migrator.states import GuestState, PauseReason

UUID = '11111111-2222-4333-8444-555555555555'
MIGRATION = 'aaaaaaaa-2222-4333-8444-555555555555'
RUNNING, HELD = [libvirt.VIR_DOMAIN_RUNNING, 1], [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
XML = f'<domain type="qemu"><name>guest</name><uuid>{UUID}</uuid><memory unit="KiB">1</memory><vcpu>1</vcpu><devices/></domain>'
PLAN = facts.Plan(migration_id=MIGRATION, instance_uuid=UUID, source_host='alpha', destination_host='beta', connection_uri='qemu:///b',
                  migration_host='10.0.0.2', listen_address='0.0.0.0', disks=(), copy=(), bandwidth_mib=0, memory_mib=1)


class Domain:
    """A guest whose migration ends with an error; `then` is called within it. Not persistent, so that undefining it needs nothing."""

    def __init__(self, then):
        self.now, self.then, self.deaf = RUNNING, then, False
        self.destroyed = False

    def migrateToURI3(self, *_):
        self.then()
        raise libvirt.libvirtError('client socket is closed')

    def suspend(self):
        if self.deaf:
            raise libvirt.libvirtError('libvirtd is gone')
        self.now = HELD

    def resume(self):
        self.now = RUNNING

    def destroy(self):
        self.destroyed = True

    def state(self):
        return self.now

    def jobStats(self):
        return {'type': libvirt.VIR_DOMAIN_JOB_NONE}

    def isActive(self):
        return True

    def isPersistent(self):
        return False

    def XMLDesc(self, _flags):
        return XML


class HoldTest(testtools.TestCase):
    """What the driver does with it at the source."""

    def setUp(self):
        super().setUp()
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        place = storage.Storage(str(root / 'i'), [], str(root / 'state'), 'alpha')
        place.start()
        self.observer = observe.Observer(None, None, place)
        self.folders = folders.Folders(place)
        self.migration = migration.Migration(place, self.folders, self.observer)
        self.connection = mock.Mock()
        self.domain = Domain(self.hand_over)
        self.connection.lookupByUUIDString.return_value = self.domain

    def hand_over(self):
        """Tell whoever listens that the guest was paused for the hand-over."""
        for call in self.connection.domainEventRegisterAny.call_args_list:
            if call.args[1] == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:
                call.args[2](None, None, libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED, None)

    def migrate(self):
        """Run the migration, which fails; give the error's words."""
        call = lasting.LastingCall('alpha', PLAN.connection_uri, lambda: False)
        return str(self.assertRaises(exceptions.DriverError, concurrency.run_native, call.run, self.migration.migrate, self.connection,
                                     PLAN, {'migration_id': MIGRATION}, call))

    def located(self):
        """State and reason as the conductor hears them."""
        said = self.observer.locate(self.connection, UUID)
        return said.state, said.reason

    def test_after_the_hand_over_it_is_held_and_counts_as_handed_over(self):
        said = self.migrate()
        self.assertIn('held', said)
        self.assertIn('client socket is closed', said)
        self.assertEqual((GuestState.PAUSED, PauseReason.MIGRATION), self.located())

    def test_the_undo_lets_it_go_on(self):
        self.migrate()
        self.assertEqual({'resumed': True}, self.migration.undo_at_source(self.connection, PLAN))
        self.assertEqual((GuestState.RUNNING, PauseReason.NONE), self.located())
        self.domain.now = HELD
        self.assertEqual((GuestState.PAUSED, PauseReason.USER), self.located(), 'a later pause is the user\'s own')

    def test_the_last_step_removes_it(self):
        self.migrate()
        self.migration.finish_at_source(self.connection, PLAN)
        self.assertTrue(self.domain.destroyed)

    def test_before_the_hand_over_it_goes_on(self):
        self.domain.then = lambda: None
        self.assertNotIn('held', self.migrate())
        self.assertEqual((GuestState.RUNNING, PauseReason.NONE), self.located())

    def test_a_guest_that_cannot_be_held_is_not_said_to_be(self):
        self.domain.deaf = True
        self.assertNotIn('held', self.migrate())
        self.assertEqual((GuestState.RUNNING, PauseReason.NONE), self.located())

    def test_a_note_of_an_earlier_migration_means_nothing_to_the_next_one(self):
        self.migrate()
        self.domain.now, self.domain.then = RUNNING, lambda: None       # somebody resumed it by hand
        self.migrate()
        self.domain.now = HELD
        self.assertEqual((GuestState.PAUSED, PauseReason.USER), self.located())
