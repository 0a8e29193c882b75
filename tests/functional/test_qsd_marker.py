"""The switch of a take-over on real storage daemons, with an agent or an array that dies on each side of the marker.

A client writes, flushes and writes on all the time. Whatever dies, nothing that was acknowledged and flushed may be missing, neither
at the moment when the array serves it again nor at the end.
"""
import contextlib
import uuid
from unittest import mock

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from migrator.volume.array import Array as ArraySide
from migrator.volume.qmp import ArraySilent, Refused
from migrator.volume.records import Records
from tests import base
from tests.contract.volume_driver import MIB
from tests.functional.flushing_client import FlushingClient
from tests.functional.test_qsd_driver import QsdHarness
from tests.lab.processes import wait_until

SIZE = 32 * MIB
#: The client writes below, to clusters that are not allocated; some data from there on.
DATA_AT = 24 * MIB


class AgentDies(BaseException):
    """Nothing of the agent runs behind this."""


class SwitchCase(base.TestCase):
    """A LUN of array a that b takes over, with a client on it."""

    timeout = 120
    form = None

    def setUp(self):
        super().setUp()
        self.harness = QsdHarness(self.useFixture, self.form)
        self.a, self.b = self.harness.a, self.harness.b
        self.a.create('fast', 'vol', SIZE, str(uuid.uuid4()))
        source = self.a.export('fast', 'vol', 'vol-export', True)
        self.harness.write(source, DATA_AT, 8 * MIB, 0x5a)
        self.target = facts.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'b', 'fast', 'vol-new', SIZE)
        self.b.migrate_volume_target(self.a.show('fast', 'vol'), source, self.target)
        self.connection = self.b.export('fast', 'vol-new', 'new-export', True)
        self.client = FlushingClient(self.connection, DATA_AT)
        self.addCleanup(self.client.finish)
        self.client.await_writes()

    def marked(self):
        """Whether the marker is there."""
        mirror = self.b._records.get('fast', 'vol-new').mirror
        return mirror is not None and mirror.local_is_complete

    @contextlib.contextmanager
    def at(self, point, act):
        """Have `act` called when the switch comes to this point: before or behind the marker, or behind the switch."""
        put, switch = Records.put, ArraySide.switch

        def putting(records, record):
            is_marker = record.mirror is not None and record.mirror.local_is_complete
            if is_marker and point == 'before the marker':
                act()
            result = put(records, record)
            if is_marker and point == 'behind the marker':
                act()
            return result

        def switching(array, record):
            switch(array, record)
            if point == 'behind the switch':
                act()
        with mock.patch.object(Records, 'put', putting), mock.patch.object(ArraySide, 'switch', switching):
            yield

    def array_dies(self, point, marked):
        """Kill b's daemon there; when it is back, what was flushed is there, and the client goes on."""
        def act():
            self.harness.arrays['b'].kill()
            if not marked:
                raise ArraySilent('killed')     # it would be written after all, and rightly: everything is in the file by then
        self.b._takeover._patience = 0.0
        with self.at(point, act), self.assertRaises(ArraySilent):
            self.b.complete_migration_target(self.target)
        self.client.finish()
        self.assertEqual(marked, self.marked())
        if marked:
            self.a.unexport('fast', 'vol', 'vol-export', force=True)       # nothing may need it any more
        self.harness.arrays['b'].start()
        self.b.pools()
        self.assertEqual([], self.client.missing(self.harness.read(self.connection)))
        self.client.begin()
        self.assert_ends_well()

    def agent_dies(self, point, marked):
        """Kill b's agent there; the next one, and nobody else, lets the clients go on that were held back."""
        def act():
            raise AgentDies
        with self.at(point, act), self.assertRaises(AgentDies):
            self.b.complete_migration_target(self.target)
        self.assertEqual(marked, self.marked())
        self.b = self.harness.driver('b')
        self.assert_ends_well()

    def assert_ends_well(self):
        """The client goes on; completed, nothing is needed from the source, and nothing is missing."""
        self.client.await_writes()
        self.b.complete_migration_target(self.target)
        self.client.await_writes()
        self.a.unexport('fast', 'vol', 'vol-export', force=True)
        self.client.await_writes()
        self.client.finish()
        for _ in range(2):
            data = self.harness.read(self.connection)
            self.assertEqual([], self.client.missing(data))
            self.assertTrue(data[DATA_AT:] == b'\x5a' * 8 * MIB, 'what was there before differs')
            self.harness.restart_array(self.b)
            self.b.pools()


class Qcow2Test(SwitchCase):
    """LUNs as qcow2 files, whose tables are in the daemon's memory until somebody flushes."""

    form = 'qcow2'

    def test_nobody_dies(self):
        self.assert_ends_well()

    def test_the_array_dies_before_the_marker(self):
        self.array_dies('before the marker', False)

    def test_the_array_dies_behind_the_marker(self):
        self.array_dies('behind the marker', True)

    def test_the_array_dies_behind_the_switch(self):
        self.array_dies('behind the switch', True)

    def test_the_agent_dies_before_the_marker(self):
        self.agent_dies('before the marker', False)

    def test_the_agent_dies_behind_the_marker(self):
        self.agent_dies('behind the marker', True)

    def test_the_agent_dies_behind_the_switch(self):
        self.agent_dies('behind the switch', True)

    def test_an_agent_that_dies_and_comes_back_with_the_array(self):
        """Given the marker, when agent and array die together, then the next agent serves the local file."""
        def act():
            self.harness.arrays['b'].kill()
            raise AgentDies
        with self.at('behind the marker', act), self.assertRaises(AgentDies):
            self.b.complete_migration_target(self.target)
        self.client.finish()
        self.harness.arrays['b'].start()
        self.b = self.harness.driver('b')
        self.assertEqual([], self.client.missing(self.harness.read(self.connection)))
        self.client.begin()
        self.assert_ends_well()

    def stop_at_the_marker(self):
        """Let what completes the take-over die behind the marker; the agent goes on with other work."""
        def act():
            raise AgentDies
        with self.at('behind the marker', act), self.assertRaises(AgentDies):
            self.b.complete_migration_target(self.target)
        self.assertTrue(self.marked())

    def test_a_client_that_comes_while_the_marker_stands(self):
        """Given clients that are held back behind the marker, when another one is let in, then all of them go on at the local file."""
        self.stop_at_the_marker()
        second = FlushingClient(self.b.export('fast', 'vol-new', 'second-export', True), DATA_AT // 2)
        self.addCleanup(second.finish)
        second.await_writes()
        self.client.await_writes()
        second.finish()
        self.b.unexport('fast', 'vol-new', 'second-export', force=True)
        self.client.flushed = {}                # they wrote to the same blocks
        self.assert_ends_well()

    def test_a_client_that_comes_when_the_mirror_has_failed_behind_the_marker(self):
        """Given a marker, and a mirror that failed behind it, when a client is let in, then it gets what the others write: the remote."""
        self.stop_at_the_marker()
        with self.b._array() as array:
            record = self.b._records.get('fast', 'vol-new')
            array.cancel_mirror(record)
            wait_until(lambda: array.job(record)['status'] == 'concluded', 20, 'the end of the mirror')
        self.client.await_writes()
        second = self.b.export('fast', 'vol-new', 'second-export', False)
        self.assertFalse(self.marked())
        self.client.await_writes()
        self.client.finish()
        self.assertEqual([], self.client.missing(self.harness.read(second)))
        self.client.begin()
        with self.assertRaises(exceptions.DriverError):
            self.b.complete_migration_target(self.target)       # how it failed
        self.assert_ends_well()

    def test_the_next_heartbeat_ends_what_was_left(self):
        """Given clients that are held back by a job that nobody ends, when the agent tells of its pools, then they go on."""
        with self.b._array() as array:
            record = self.b._records.get('fast', 'vol-new')
            wait_until(lambda: array.job(record)['status'] == 'ready', 20, 'the mirror')
            array.drain(record)
            wait_until(lambda: array.job(record)['status'] == 'pending', 20, 'the clients to be held back')
        self.b.pools()
        self.assert_ends_well()

    def test_an_agent_that_stops_leaves_nobody_held_back(self):
        """Given clients that are held back, when the agent ends in order, then they go on without it."""
        with self.b._array() as array:
            record = self.b._records.get('fast', 'vol-new')
            wait_until(lambda: array.job(record)['status'] == 'ready', 20, 'the mirror')
            array.drain(record)
            wait_until(lambda: array.job(record)['status'] == 'pending', 20, 'the clients to be held back')
        self.b.stop()
        self.client.await_writes()
        self.b = self.harness.driver('b')
        self.assert_ends_well()

    def test_a_marker_that_cannot_be_written(self):
        """Given a pool that is full when the marker is due, then clients go on at the remote, there is no marker, and a repetition ends."""
        def act():
            raise exceptions.NoSpace('the record cannot be written: No space left on device')
        with self.at('before the marker', act), self.assertRaises(exceptions.NoSpace):
            self.b.complete_migration_target(self.target)
        self.assertFalse(self.marked())
        self.assert_ends_well()

    def test_a_switch_that_is_refused(self):
        """Given the marker, when the array refuses the switch, then the marker is gone before a client has written anything more."""
        def refused(array, record):
            raise Refused('job-finalize: no')
        with mock.patch.object(ArraySide, 'switch', refused), self.assertRaises(exceptions.DriverError):
            self.b.complete_migration_target(self.target)
        self.assertFalse(self.marked())
        self.assert_ends_well()


class RawTest(SwitchCase):
    """LUNs as raw files."""

    form = 'raw'

    def test_the_array_dies_before_the_marker(self):
        self.array_dies('before the marker', False)

    def test_the_array_dies_behind_the_marker(self):
        self.array_dies('behind the marker', True)

    def test_the_array_dies_behind_the_switch(self):
        self.array_dies('behind the switch', True)

    def test_the_agent_dies_before_the_marker(self):
        self.agent_dies('before the marker', False)

    def test_the_agent_dies_behind_the_marker(self):
        self.agent_dies('behind the marker', True)

    def test_the_agent_dies_behind_the_switch(self):
        self.agent_dies('behind the switch', True)
