"""The contract of volume drivers as scenarios: what `migrator.volume.driver` promises, seen from a client of the array.

A driver's tests subclass `VolumeDriverContract` and `TakeoverContract` with a `VolumeHarness`.
"""
import abc
import dataclasses
import threading
import uuid

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from migrator.states import LunState

MIB = 1 << 20
SIZE = 32 * MIB


class VolumeHarness(abc.ABC):
    """Two arrays with a started driver each, `a` and `b`, with a pool `fast` of at most a few hundred MiB to be filled."""

    a = None
    b = None

    @abc.abstractmethod
    def write(self, connection, offset, length, byte):
        """Write `byte` over a range, as a client of the export; returns once the array acknowledged it."""

    @abc.abstractmethod
    def writer(self, connection):
        """A context manager that gives a function that does what `write` does, of one client that stays connected."""

    @abc.abstractmethod
    def read(self, connection) -> bytes:
        """Read the whole export, as a client."""

    @abc.abstractmethod
    def serves(self, connection) -> bool:
        """Whether the export can be opened."""

    @abc.abstractmethod
    def holding(self, connection):
        """A context manager that keeps a client connected."""

    @abc.abstractmethod
    def left(self, driver) -> set:
        """Name what lies in the pool `fast` of the driver's array, records included."""

    @abc.abstractmethod
    def restart_array(self, driver):
        """Kill the driver's array and start it again, empty; the driver is not told."""

    @abc.abstractmethod
    def restart_driver(self, driver):
        """Give a new driver in the place of this one, as after a restart of the agent; it is started."""


class Base:
    """What scenarios share; `harness` is made for each."""

    def setUp(self):
        super().setUp()
        self.harness = self.make_harness()
        self.a, self.b = self.harness.a, self.harness.b
        self.owner = str(uuid.uuid4())

    def make_harness(self):
        """Give a VolumeHarness whose removal is arranged for."""
        raise NotImplementedError

    def lun(self, driver=None, name='vol', size=SIZE, **export):
        """Make a LUN and export it, writable; returns its Connection."""
        (driver or self.a).create('fast', name, size, self.owner)
        return (driver or self.a).export('fast', name, f'{name}-export', True)


class VolumeDriverContract(Base):
    """The life of a LUN."""

    def test_a_new_lun_reads_as_zeros(self):
        connection = self.lun()
        self.assertEqual(bytes(SIZE), self.harness.read(connection))
        shown = self.a.show('fast', 'vol')
        self.assertEqual((LunState.READY, SIZE, self.owner), (shown.state, shown.size, shown.owner))
        self.assertEqual(['vol'], [lun.name for lun in self.a.list()])

    def test_making_it_twice_keeps_what_was_written(self):
        connection = self.lun()
        self.harness.write(connection, 0, MIB, 0x5a)
        self.a.create('fast', 'vol', SIZE, self.owner)
        self.assertEqual(b'\x5a' * MIB, self.harness.read(connection)[:MIB])

    def test_the_name_belongs_to_who_made_it(self):
        self.a.create('fast', 'vol', SIZE, self.owner)
        with self.assertRaises(exceptions.NameTaken):
            self.a.create('fast', 'vol', SIZE, str(uuid.uuid4()))
        with self.assertRaises(exceptions.NameTaken):
            self.a.create('fast', 'vol', 2 * SIZE, self.owner)
        with self.assertRaises(exceptions.PreconditionFailed):
            self.a.delete('fast', 'vol', str(uuid.uuid4()))
        self.assertEqual(SIZE, self.a.show('fast', 'vol').size)

    def test_without_room_nothing_is_left(self):
        free = self.a.pools()[0].free
        with self.assertRaises(exceptions.NoSpace):
            self.a.create('fast', 'vol', (free + (1 << 30)) // 512 * 512, self.owner)
        self.assertEqual(set(), self.harness.left(self.a))

    def test_odd_names_are_refused(self):
        for pool, name in (('fast', '../vol'), ('fast', ''), ('fast', 'a/b'), ('none', 'vol'), ('fast', 'x' * 200)):
            with self.assertRaises(exceptions.InvalidRequest, msg=name):
                self.a.create(pool, name, SIZE, self.owner)
        self.assertEqual(set(), self.harness.left(self.a))

    def test_deleting_leaves_nothing_and_may_be_repeated(self):
        self.lun()
        with self.assertRaises(exceptions.PreconditionFailed):
            self.a.delete('fast', 'vol', self.owner)
        self.a.unexport('fast', 'vol', 'vol-export')
        for _ in range(2):
            self.a.delete('fast', 'vol', self.owner)
        self.assertEqual((set(), LunState.ABSENT), (self.harness.left(self.a), self.a.show('fast', 'vol').state))

    def test_growing(self):
        connection = self.lun()
        self.harness.write(connection, SIZE - MIB, MIB, 0x77)
        with self.assertRaises(exceptions.PreconditionFailed):
            self.a.extend('fast', 'vol', 2 * SIZE)
        self.a.unexport('fast', 'vol', 'vol-export')
        for _ in range(2):
            self.a.extend('fast', 'vol', 2 * SIZE)
        with self.assertRaises(exceptions.InvalidRequest):
            self.a.extend('fast', 'vol', SIZE)
        data = self.harness.read(self.a.export('fast', 'vol', 'again', False))
        self.assertEqual((b'\x77' * MIB, bytes(SIZE)), (data[SIZE - MIB:SIZE], data[SIZE:]))

    def test_an_export_in_use_is_not_ended_unless_forced(self):
        connection = self.lun()
        with self.harness.holding(connection):
            with self.assertRaises(exceptions.PreconditionFailed):
                self.a.unexport('fast', 'vol', 'vol-export')
            self.assertTrue(self.harness.serves(connection))
            self.a.unexport('fast', 'vol', 'vol-export', force=True)
        self.a.unexport('fast', 'vol', 'vol-export')
        self.assertFalse(self.harness.serves(connection))

    def test_an_export_does_not_change_its_mode(self):
        self.a.create('fast', 'vol', SIZE, self.owner)
        first = self.a.export('fast', 'vol', 'e', False)
        self.assertEqual(first, self.a.export('fast', 'vol', 'e', False))
        with self.assertRaises(exceptions.PreconditionFailed):
            self.a.export('fast', 'vol', 'e', True)
        self.assertFalse(self.a.show('fast', 'vol').exports[0].writable)

    def test_exports_outlive_the_array(self):
        connection = self.lun()
        self.a.export('fast', 'vol', 'ended', False)
        self.harness.write(connection, MIB, MIB, 0x31)
        self.a.unexport('fast', 'vol', 'ended')
        self.harness.restart_array(self.a)
        self.a.pools()
        self.assertEqual(b'\x31' * MIB, self.harness.read(connection)[MIB:2 * MIB])
        self.assertEqual(['vol-export'], [e.name for e in self.a.show('fast', 'vol').exports])


class TakeoverContract(Base):
    """Seed 001: a target that takes over a LUN while it is written."""

    def setUp(self):
        super().setUp()
        self.source = self.lun(size=SIZE)
        self.model = bytearray(SIZE)
        for number in range(32):
            self.put(self.source, number * MIB, MIB, number + 1)
        self.target = facts.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'b', 'fast', 'vol-new', SIZE)

    def put(self, connection, offset, length, byte, write=None):
        """Write, in the reference model too. write: of a client that is connected already."""
        if write is None:
            self.harness.write(connection, offset, length, byte)
        else:
            write(offset, length, byte)
        self.model[offset:offset + length] = bytes([byte]) * length

    def take_over(self):
        """Begin; returns the Connection that clients use from then on."""
        answer = self.b.migrate_volume_target(self.a.show('fast', 'vol'), self.source, self.target)
        self.assertEqual((True, True), answer[:2])
        return self.b.export('fast', 'vol-new', 'new-export', True)

    def assert_whole(self, connection):
        """The target is complete without the source, and what was acknowledged is there."""
        self.assertEqual(LunState.READY, self.b.show('fast', 'vol-new').state)
        self.a.unexport('fast', 'vol', 'vol-export')
        self.assertTrue(self.harness.read(connection) == bytes(self.model), 'the target differs from what was written')

    def test_what_is_written_meanwhile_is_there(self):
        connection = self.take_over()
        writing = threading.Event()

        def write():
            with self.harness.writer(connection) as put:
                for number in range(192):
                    self.put(connection, (number * 7 % 32) * MIB + 4096, 65536, 0x80 + number % 64, put)
                    writing.set()
        writer = threading.Thread(target=write)
        writer.start()
        writing.wait(20)
        self.b.complete_migration_target(self.target)
        writer.join()
        self.b.complete_migration_target(self.target)
        self.put(connection, 0, 4096, 0xff)
        self.assert_whole(connection)

    def test_asked_twice_it_is_one_take_over(self):
        connection = self.take_over()
        self.put(connection, 5 * MIB, MIB, 0xee)
        self.take_over()
        self.b.complete_migration_target(self.target)
        self.take_over()
        self.assert_whole(connection)

    def test_the_array_restarts_while_data_is_on_its_way(self):
        connection = self.take_over()
        self.put(connection, 3 * MIB, MIB, 0xcc)
        self.harness.restart_array(self.b)
        self.b.pools()
        self.assertEqual(b'\xcc' * MIB, self.harness.read(connection)[3 * MIB:4 * MIB])
        self.put(connection, 30 * MIB, MIB, 0xdd)
        self.b.complete_migration_target(self.target)
        self.assert_whole(connection)

    def test_the_agent_restarts_while_data_is_on_its_way(self):
        connection = self.take_over()
        self.put(connection, 3 * MIB, MIB, 0xcc)
        self.b = self.harness.restart_driver(self.b)
        self.b.complete_migration_target(self.target)
        self.assert_whole(connection)

    def test_it_is_held_to_a_limit_which_can_be_changed(self):
        """Given a limit by which the data would need half an hour, then it does not arrive, though clients write at once, nor after a
        restart of the array; when the limit is lifted, it does."""
        self.target = dataclasses.replace(self.target, bandwidth=MIB // 64)
        connection = self.take_over()
        for change in (lambda: None, lambda: self.harness.restart_array(self.b)):
            change()
            self.b.pools()
            self.put(connection, 3 * MIB, MIB, 0xcc)
            told = self.b.progress('fast', 'vol-new')
            self.assertEqual((True, False), (told.active, told.ready))
        self.assertTrue(self.b.set_mirror_rate('fast', 'vol-new', 0))
        self.target = dataclasses.replace(self.target, bandwidth=0)
        self.b.complete_migration_target(self.target)
        self.assertFalse(self.b.set_mirror_rate('fast', 'vol-new', MIB))
        self.assertFalse(self.b.set_mirror_rate('fast', 'nothing', MIB))
        self.assert_whole(connection)

    def test_a_limit_that_no_agent_heard_of_holds_from_the_completion_on(self):
        """Given a limit of half an hour that was lifted while the agent was away, when the completion is asked for, then it is lifted."""
        self.target = dataclasses.replace(self.target, bandwidth=MIB // 64)
        connection = self.take_over()
        self.b.complete_migration_target(dataclasses.replace(self.target, bandwidth=0))
        self.assert_whole(connection)

    def test_the_source_array_restarts(self):
        connection = self.take_over()
        self.harness.restart_array(self.a)
        self.a.pools()
        self.put(connection, 9 * MIB, MIB, 0xbb)
        self.b.complete_migration_target(self.target)
        self.assert_whole(connection)

    def test_cancelled_before_anybody_uses_it_nothing_is_left(self):
        self.b.migrate_volume_target(self.a.show('fast', 'vol'), self.source, self.target)
        for _ in range(2):
            self.b.cancel_migration_target(self.target)
        self.assertEqual(set(), self.harness.left(self.b))
        self.assertTrue(self.harness.read(self.source) == bytes(self.model))

    def test_one_that_is_in_use_is_not_cancelled(self):
        connection = self.take_over()
        self.put(connection, 0, MIB, 0x99)
        with self.assertRaises(exceptions.PreconditionFailed):
            self.b.cancel_migration_target(self.target)
        with self.assertRaises(exceptions.PreconditionFailed):
            self.b.delete('fast', 'vol-new', self.target.migration_id)
        self.b.complete_migration_target(self.target)
        self.assert_whole(connection)

    def test_a_source_that_cannot_be_reached_is_an_error_and_leaves_nothing(self):
        shown = self.a.show('fast', 'vol')
        self.a.unexport('fast', 'vol', 'vol-export')
        with self.assertRaises(exceptions.DriverError):
            self.b.migrate_volume_target(shown, self.source, self.target)
        self.assertEqual(set(), self.harness.left(self.b))

    def test_a_source_that_cannot_be_written_is_declined(self):
        read_only = self.a.export('fast', 'vol', 'ro', False)
        self.assertEqual((False, False, {}), self.b.migrate_volume_target(self.a.show('fast', 'vol'), read_only, self.target))
        self.assertEqual(set(), self.harness.left(self.b))

    def test_a_lun_of_the_array_itself_holds_up_nothing(self):
        """Given a LUN of the array that is to take it over, whether it does or declines: it answers, and the LUN can be read."""
        before = self.harness.left(self.a)
        moved, _, _ = self.a.migrate_volume_target(self.a.show('fast', 'vol'), self.source, dataclasses.replace(self.target, backend='a'))
        self.assertEqual(not moved, before == self.harness.left(self.a))
        self.assertTrue(self.a.pools())
        self.assertTrue(self.harness.read(self.source) == bytes(self.model))
