"""Which end of a hand-over a guest is at, and what libvirt's answers mean, told by a stand-in for libvirt's domain."""
import os
import pathlib
import types
from unittest import mock

import fixtures
import libvirt
import testtools

from migrator.compute.drivers.libvirt import domains, migration, observe, storage
from migrator.rpc import facts
from migrator.states import GuestState, PauseReason

UUID = '11111111-2222-4333-8444-555555555555'
HANDED_OVER = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
OUT = {'type': libvirt.VIR_DOMAIN_JOB_UNBOUNDED, 'operation': libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
IDLE = {'type': libvirt.VIR_DOMAIN_JOB_NONE}


def refusal(code):
    """libvirt's error with a code."""
    error = libvirt.libvirtError('refused')
    error.err = (code, 0, 'refused', 2, '', '', '', 0, 0)
    return error


class Domain:
    """As much of virDomain as is asked. answers of jobStats: a dict, or an error to raise."""

    def __init__(self, state, job=None, persistent=True):
        self.state = lambda: state
        self._job = IDLE if job is None else job
        self.isPersistent = lambda: persistent
        self.isActive = lambda: state[0] not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)

    def jobStats(self):
        if isinstance(self._job, Exception):
            raise self._job
        return self._job


class Connection:
    """A connection that knows one guest, or raises the error that it is given."""

    def __init__(self, found):
        self._found = found

    def lookupByUUIDString(self, uuid):
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


class LocateTest(testtools.TestCase):
    """States, reasons and jobs."""

    def setUp(self):
        super().setUp()
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.storage = storage.Storage(str(root / 'i'), [], str(root / 'state'), 'alpha')
        self.storage.start()
        self.observer = observe.Observer(types.SimpleNamespace(), None, self.storage)

    def expect_guest(self):
        """Leave the note of a migration that is to arrive here."""
        pathlib.Path(self.storage.incoming_path, UUID).write_text('a-migration\n')

    def located(self, *args, **kwargs):
        """State, reason and whether a job is active."""
        said = self.observer.locate(Connection(Domain(*args, **kwargs)), UUID)
        return said.state, said.reason, said.job_active

    def test_states(self):
        for state, expected in (
                ([libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED], (GuestState.RUNNING, PauseReason.NONE)),
                ([libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY], (GuestState.RUNNING, PauseReason.POST_COPY)),
                ([libvirt.VIR_DOMAIN_BLOCKED, 0], (GuestState.RUNNING, PauseReason.NONE)),
                ([libvirt.VIR_DOMAIN_SHUTDOWN, 1], (GuestState.RUNNING, PauseReason.NONE)),
                ([libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER], (GuestState.PAUSED, PauseReason.USER)),
                ([libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR], (GuestState.PAUSED, PauseReason.IO_ERROR)),
                ([libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY], (GuestState.PAUSED, PauseReason.POST_COPY)),
                ([libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED], (GuestState.PAUSED, PauseReason.POST_COPY_FAILED)),
                ([libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG], (GuestState.PAUSED, PauseReason.OTHER)),
                ([libvirt.VIR_DOMAIN_PMSUSPENDED, 0], (GuestState.PAUSED, PauseReason.OTHER)),
                ([libvirt.VIR_DOMAIN_SHUTOFF, 1], (GuestState.OFF, PauseReason.NONE)),
                ([libvirt.VIR_DOMAIN_CRASHED, 1], (GuestState.OFF, PauseReason.NONE))):
            self.assertEqual((*expected, False), self.located(state), state)

    def test_the_jobs_direction_tells_which_end_it_is(self):
        incoming = refusal(libvirt.VIR_ERR_OPERATION_UNSUPPORTED)  # statistics are available only at the source
        self.assertEqual((GuestState.INCOMING, PauseReason.NONE, True), self.located(HANDED_OVER, incoming))
        self.assertEqual((GuestState.PAUSED, PauseReason.MIGRATION, True), self.located(HANDED_OVER, OUT))

    def test_an_emulator_that_starts_to_receive_is_incoming(self):
        starting = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP]
        self.assertEqual((GuestState.PAUSED, PauseReason.OTHER, False), self.located(starting))
        self.expect_guest()
        self.assertEqual((GuestState.INCOMING, PauseReason.NONE, False), self.located(starting))

    def test_without_a_job_the_note_tells_which_end_it_is(self):
        """Given a hand-over that nobody works on any more, the guest is incoming only where it was expected, defined or not."""
        for persistent in (True, False):
            self.assertEqual((GuestState.PAUSED, PauseReason.MIGRATION, False), self.located(HANDED_OVER, persistent=persistent))
        self.expect_guest()
        for persistent in (True, False):
            self.assertEqual((GuestState.INCOMING, PauseReason.NONE, False), self.located(HANDED_OVER, persistent=persistent))

    def test_a_note_does_not_make_the_source_of_a_running_job_a_destination(self):
        self.expect_guest()
        self.assertEqual((GuestState.PAUSED, PauseReason.MIGRATION, True), self.located(HANDED_OVER, OUT))

    def test_a_note_does_not_make_a_guest_incoming_that_runs_or_that_a_user_paused(self):
        self.expect_guest()
        self.assertEqual(GuestState.RUNNING, self.located([libvirt.VIR_DOMAIN_RUNNING, 1])[0])
        self.assertEqual(GuestState.PAUSED, self.located([libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER])[0])

    def test_another_job_is_no_migration(self):
        backup = {'type': libvirt.VIR_DOMAIN_JOB_UNBOUNDED, 'operation': libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP}
        self.assertFalse(self.located([libvirt.VIR_DOMAIN_RUNNING, 1], backup)[2])

    def test_only_libvirts_own_word_is_absence(self):
        absent = refusal(libvirt.VIR_ERR_NO_DOMAIN)
        self.assertEqual(GuestState.ABSENT, self.observer.locate(Connection(absent), UUID).state)
        self.assertEqual(GuestState.ABSENT, self.observer.locate(Connection(Domain([1, 1], absent)), UUID).state)
        for code in (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_OPERATION_TIMEOUT):
            self.assertRaises(libvirt.libvirtError, self.observer.locate, Connection(refusal(code)), UUID)
            self.assertRaises(libvirt.libvirtError, self.observer.locate, Connection(Domain([1, 1], refusal(code))), UUID)


class JobTest(testtools.TestCase):
    """Statistics in our units."""

    def test_figures(self):
        got = observe.job_figures({'memory_total': 10, 'memory_processed': 4, 'memory_remaining': 6, 'disk_total': 30, 'disk_processed': 10,
                                   'disk_remaining': 20, 'memory_dirty_rate': 3, 'memory_page_size': 2048, 'memory_iteration': 2,
                                   'downtime': 300, 'time_elapsed': 1500})
        self.assertEqual(facts.Job(active=True, memory_total=10, memory_processed=4, memory_remaining=6, disk_total=30, disk_processed=10,
                                   disk_remaining=20, dirty_rate=6144, iteration=2, downtime_ms=300, elapsed_ms=1500),
                         facts.Job(active=True, **got))

    def test_nothing_known_is_zero(self):
        self.assertEqual(facts.Job(active=True), facts.Job(active=True, **observe.job_figures({})))

    def test_a_finished_job_is_none(self):
        for figures in ({}, IDLE, {'type': libvirt.VIR_DOMAIN_JOB_COMPLETED}):
            self.assertEqual((domains.NONE, {}), domains.job(Domain([1, 1], figures)))

    def test_addresses_in_uris(self):
        self.assertEqual(['10.0.0.1', '[fd00::1]', '[fd00::1]', 'beta.lab'],
                         [observe.bracketed(a) for a in ('10.0.0.1', 'fd00::1', '[fd00::1]', 'beta.lab')])


class ReadingTest(testtools.TestCase):
    """What cannot be read."""

    def test_an_identity_that_cannot_be_read_is_left_out(self):
        root = self.useFixture(fixtures.TempDir()).path
        os.mkdir(os.path.join(root, '.migrator-storage-id'))
        self.assertEqual({}, storage.Storage(root, [], root, 'alpha').identities())


class InterventionTest(testtools.TestCase):
    """Interventions that meet the end of the job find nothing to do, at whatever moment it ends."""

    def test_a_guest_that_leaves_after_it_was_found(self):
        for code in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            gone = refusal(code)
            leaving = Domain([libvirt.VIR_DOMAIN_RUNNING, 1], OUT)
            leaving.suspend = leaving.abortJob = mock.Mock(side_effect=gone)
            for domain in (Domain([libvirt.VIR_DOMAIN_RUNNING, 1], gone), leaving):
                for intervene in (migration.Migration.abort, migration.Migration.force_complete):
                    self.assertFalse(intervene(Connection(domain), UUID))

    def test_other_errors_are_told(self):
        broken = Domain([libvirt.VIR_DOMAIN_RUNNING, 1], refusal(libvirt.VIR_ERR_RPC))
        for intervene in (migration.Migration.abort, migration.Migration.force_complete):
            self.assertRaises(libvirt.libvirtError, intervene, Connection(broken), UUID)
