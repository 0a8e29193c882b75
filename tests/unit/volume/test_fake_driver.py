"""The simulated arrays: the contract, the ways of migration that can be chosen, faults, and copies within their world."""
import uuid

from migrator import concurrency, exceptions
from migrator.rpc import volume_facts as vf
from migrator.states import LunState
from migrator.volume.copying import Copying, End
from tests import base
from tests.contract import volume_driver
from tests.contract.fake_arrays import FakeArrayHarness
from tests.contract.volume_driver import MIB, SIZE
from tests.unit.rpc import support


class FakeArrayCase(base.TestCase):
    """Two simulated arrays."""

    options = {}

    def make_harness(self):
        harness = FakeArrayHarness(**self.options)
        self.addCleanup(harness.world.forget)
        return harness


class ContractTest(volume_driver.VolumeDriverContract, FakeArrayCase):
    """The life of a LUN."""

    make_harness = FakeArrayCase.make_harness


class TakeoverTest(volume_driver.TakeoverContract, FakeArrayCase):
    """Seed 001 between two of them."""

    make_harness = FakeArrayCase.make_harness

    def test_a_target_whose_source_dies_keeps_both_luns_and_goes_on_when_it_is_back(self):
        connection = self.take_over()
        self.harness.world.kill(self.a.name)
        with self.assertRaises(exceptions.DriverError):
            self.b.complete_migration_target(self.target)
        self.assertEqual(LunState.MIRRORING, self.b.show('fast', 'vol-new').state)
        self.harness.world.start(self.a.name)
        self.b.complete_migration_target(self.target)
        self.assert_whole(connection)

    def test_progress_rises(self):
        self.take_over()
        self.assertTrue(self.b.progress('fast', 'vol-new').active)
        self.b.complete_migration_target(self.target)
        self.assertEqual(vf.Progress(), self.b.progress('fast', 'vol-new'))

    def test_a_source_that_is_mirrored_from_is_in_use(self):
        self.take_over()
        with self.assertRaises(exceptions.PreconditionFailed):
            self.a.unexport('fast', 'vol', 'vol-export')


class SlowTakeoverTest(FakeArrayCase):
    """What takes long can be left."""

    options = {'migration_seconds': 600.0}

    def test_an_agent_that_stops_leaves_the_mirror(self):
        harness = self.make_harness()
        harness.a.create('fast', 'vol', SIZE, '')
        target = vf.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'b', 'fast', 'new', SIZE)
        harness.b.migrate_volume_target(harness.a.show('fast', 'vol'), harness.a.export('fast', 'vol', 'e', True), target)
        waiting = concurrency.spawn(concurrency.run_native, harness.b.complete_migration_target, target)
        harness.b.stop()
        self.assertRaises(exceptions.DriverError, waiting.wait, 20)
        self.assertEqual(LunState.MIRRORING, harness.restart_driver(harness.b).show('fast', 'new').state)


class WaysCase(FakeArrayCase):
    """A volume at array a that is to go to b."""

    def setUp(self):
        super().setUp()
        self.harness = self.make_harness()
        self.a, self.b = self.harness.a, self.harness.b
        self.a.create('fast', 'vol', SIZE, '')
        self.connection = self.a.export('fast', 'vol', 'e', True)
        self.harness.write(self.connection, MIB, MIB, 0x42)
        self.target = vf.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'b', 'fast', 'new', SIZE)
        self.lun = self.a.show('fast', 'vol')

    def assert_moved(self):
        """The data is at the target."""
        self.assertEqual(b'\x42' * 256, self.harness.world.content('host@b', 'fast', 'new')[256:512])


class SynchronousTest(WaysCase):
    options = {'take_over': 'sync'}

    def test_a_synchronous_target_has_the_data_when_it_returns(self):
        for _ in range(2):
            answer = self.b.migrate_volume_target(self.lun, self.connection, self.target)
            self.assertEqual((True, False, {'locator': {'lun': 'new'}}), answer)
        self.assert_moved()
        self.assertEqual(LunState.READY, self.b.show('fast', 'new').state)


class DecliningTest(WaysCase):
    options = {'take_over': 'no'}

    def test_who_has_no_such_feature_declines_and_changes_nothing(self):
        self.assertEqual((False, {}), self.a.migrate_volume(self.lun, self.target))
        self.assertEqual((False, False, {}), self.b.migrate_volume_target(self.lun, self.connection, self.target))
        self.assertEqual([], self.harness.world.luns('host@b'))
        self.assertEqual([('host@a', 'declined'), ('host@b', 'declined')],
                         [(c.array, c.result) for c in self.harness.world.history() if c.method.startswith('migrate')])

    def test_what_is_copied_within_the_world_is_a_copy(self):
        copying = Copying(str(self.temp_dir), self.a.copier)
        self.b.create('fast', 'new', SIZE, self.target.migration_id)
        self.harness.world.put('host@b', 'fast', 'new', b'\xff' * 64)
        to = self.b.export('fast', 'new', 'to', True)
        ends = End(self.connection.uri, 'from'), End(to.uri, 'to')
        self.assertEqual(SIZE, copying.copy(self.target.migration_id, *ends)['bytes'])
        self.assert_moved()
        self.assertEqual('full', copying.verify(self.target.migration_id, *ends, how='full')['how'])
        self.harness.world.put('host@b', 'fast', 'new', b'\xff')
        self.assertRaises(exceptions.DriverError, copying.verify, self.target.migration_id, *ends)

    def test_a_copy_goes_on_where_it_was_and_may_be_slowed_and_cancelled(self):
        copying = Copying(str(self.temp_dir), self.a.copier)
        self.b.create('fast', 'new', SIZE, self.target.migration_id)
        ends = End(self.connection.uri, 'from'), End(self.b.export('fast', 'new', 'to', True).uri, 'to')
        working = concurrency.spawn(concurrency.run_native, copying.copy, self.target.migration_id, *ends, rate=SIZE)
        support.wait_for(lambda: copying.progress(self.target.migration_id).done)
        copying.set_rate(self.target.migration_id, 1)
        copying.cancel(self.target.migration_id)
        self.assertRaises(exceptions.MigrationAborted, working.wait, 20)
        moved = copying.copy(self.target.migration_id, *ends)['bytes']
        self.assertTrue(0 < moved < SIZE, moved)
        self.assert_moved()

    def test_a_copy_whose_source_is_gone_fails_in_words(self):
        copying = Copying(str(self.temp_dir), self.a.copier)
        self.b.create('fast', 'new', SIZE, self.target.migration_id)
        ends = End(self.connection.uri, 'from'), End(self.b.export('fast', 'new', 'to', True).uri, 'to')
        self.a.unexport('fast', 'vol', 'e')
        error = self.assertRaises(exceptions.DriverError, copying.copy, self.target.migration_id, *ends)
        self.assertIn('the source', str(error))

    def test_real_exports_are_left_to_the_program(self):
        self.assertIsNone(self.a.copier(['python', 'copier', 'copy', 'nbd://127.0.0.1:1/a', self.connection.uri, 'checkpoint']))


class MovingTest(WaysCase):
    options = {'moves': True}

    def test_a_source_that_moves_volumes_itself(self):
        self.assertRaises(exceptions.PreconditionFailed, self.a.migrate_volume, self.lun, self.target)
        self.a.unexport('fast', 'vol', 'e')
        for _ in range(2):
            self.assertEqual((True, {'locator': {'lun': 'new'}}), self.a.migrate_volume(self.lun, self.target))
        self.assert_moved()
        self.assertEqual(LunState.ABSENT, self.a.show('fast', 'vol').state)

    def test_it_declines_what_is_no_array_of_its_world(self):
        self.a.unexport('fast', 'vol', 'e')
        target = vf.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'c', 'fast', 'new', SIZE)
        self.assertEqual((False, {}), self.a.migrate_volume(self.lun, target))


class FaultsTest(FakeArrayCase):

    def setUp(self):
        super().setUp()
        self.harness = self.make_harness()

    def test_a_failure_before_and_after_the_effect(self):
        world = self.harness.world
        for action, left in (('fail', set()), ('fail-after', {'vol'})):
            world.inject('host@a', 'create', action)
            self.assertRaises(exceptions.DriverError, self.harness.a.create, 'fast', 'vol', SIZE, '')
            self.assertEqual(left, self.harness.left(self.harness.a))
        self.harness.a.create('fast', 'vol', SIZE, '')

    def test_an_array_that_does_not_answer(self):
        self.harness.world.kill('host@a')
        for call in (self.harness.a.pools, self.harness.a.list, lambda: self.harness.a.create('fast', 'x', SIZE, '')):
            self.assertRaises(exceptions.DriverError, call)
        self.assertEqual(1, len(self.harness.b.pools()))

    def test_a_world_in_a_file_outlives_its_driver(self):
        harness = FakeArrayHarness(str(self.temp_dir / 'arrays.db'))
        self.addCleanup(harness.world.forget)
        harness.a.create('fast', 'vol', SIZE, '')
        self.assertEqual(SIZE, harness.restart_driver(harness.a).show('fast', 'vol').size)
