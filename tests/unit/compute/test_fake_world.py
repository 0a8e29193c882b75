"""What is special to the simulated world: orders, violations that it notices, history, faults, and that it is cheap at scale."""
import dataclasses
import os
import tempfile
import time
import unittest
import uuid

from migrator import concurrency, exceptions
from migrator.compute.drivers.fake.driver import FakeDriver
from migrator.compute.drivers.fake.store import forget, open_store
from migrator.compute.drivers.fake.world import World
from migrator.rpc import facts
from migrator.states import GuestState, PauseReason
from tests.contract import harness as hands
from tests.contract.compute_base import Outcome
from tests.contract.fake import PRIVATE, SHARED, FakeHarness, fake_conf


class FakeCase(unittest.TestCase):
    """A running guest at alpha and a plan that takes it to beta, prepared there."""

    def setUp(self):
        super().setUp()
        self.harness = FakeHarness()
        self.addCleanup(self.harness.world.forget)
        self.addCleanup(self.harness.close)
        self.world, self.a, self.b = self.harness.world, self.harness.a, self.harness.b
        spec = self.harness.spec()
        self.uuid = spec.uuid
        self.a.create_instance(spec)
        self.a.start_instance(self.uuid)
        self.plan = hands.plan_for(self.a, self.b, self.uuid)
        self.prepared = self.b.pre_live_migration(self.plan)

    def slowly(self):
        """Start the migration so that it lasts; gives its Outcome, with the job running."""
        outcome = Outcome(self.a, dataclasses.replace(self.plan, bandwidth_mib=1), self.prepared)
        hands.wait_for(lambda: self.a.locate(self.uuid).job_active, 'a running job', 10)
        return outcome

    def violation(self):
        """The one violation, without the guest's uuid."""
        words = [w.removeprefix(self.uuid + ': ') for w in self.world.check()]
        self.assertTrue(words)
        return words


class TestViolations(FakeCase):
    """Each way to break the promise is noticed; a clean world has none."""

    def test_a_good_migration_breaks_nothing_and_leaves_nothing(self):
        self.a.live_migration(self.plan, self.prepared)
        left = self.world.leftovers(self.uuid)
        self.assertIn('file vda.qcow2 at alpha', left)
        self.assertIn(f'marker of migration:{self.plan.migration_id} on vda.qcow2 at beta', left)
        self.b.post_live_migration_at_destination(self.plan)
        self.a.post_live_migration_at_source(self.plan)
        self.assertEqual(([], []), (self.world.check(), self.world.leftovers(self.uuid)))

    def test_a_second_running_copy(self):
        self.world.add_guest('beta', self.uuid, disks=(self.world.disk(self.uuid, SHARED),))
        self.assertTrue(any('started at beta while it runs at alpha' in w for w in self.violation()), self.violation())
        self.assertIn('two running copies: alpha, beta', self.violation())

    def test_a_stale_copy_that_is_started(self):
        self.a.live_migration(self.plan, self.prepared)
        self.b.stop_instance(self.uuid, 0)
        time.sleep(0.15)  # a write of the simulated guest takes a tenth of a second
        self.b.start_instance(self.uuid)
        time.sleep(0.25)
        self.b.stop_instance(self.uuid, 0)
        spec = self.harness.spec()
        guest = hands.guest_of(self.b, self.uuid)
        self.world.add_guests([{'host': 'alpha', 'uuid': self.uuid, 'name': spec.name, 'disks': guest.disks, 'on': False}])
        self.assertGreater(self.world.writes(self.uuid), 0)
        self.world.set_state('alpha', self.uuid, GuestState.RUNNING)
        self.assertTrue(any('started at alpha from a copy that has' in w for w in self.violation()), self.violation())

    def test_the_last_good_copy_that_is_removed(self):
        self.world.power_off(self.uuid)
        self.a.post_live_migration_at_source(self.plan)
        self.assertIn('the last good copy of vda.qcow2 was removed', self.violation())
        self.assertIn('no host knows the guest', self.violation())

    def test_a_deletion_on_purpose_is_none(self):
        self.b.rollback_live_migration_at_destination(self.plan)
        self.a.stop_instance(self.uuid, 0)
        self.a.delete_instance(self.uuid)
        self.assertEqual(([], []), (self.world.check(), self.world.leftovers(self.uuid)))

    def test_writes_are_never_lost_on_the_way(self):
        hands.wait_for(lambda: self.world.writes(self.uuid) >= 2, 'writes of the guest', 10)
        before = self.world.writes(self.uuid)
        self.a.live_migration(self.plan, self.prepared)
        self.b.stop_instance(self.uuid, 0)
        (there,) = self.world.files(self.uuid, 'beta')
        self.assertGreaterEqual(there['content'], before)
        self.assertTrue(there['complete'])
        self.assertEqual([], self.world.check())


class TestOrders(FakeCase):
    """Faults and scripts."""

    def test_fail_is_used_up_and_changes_nothing(self):
        self.world.inject('beta', 'rollback_live_migration_at_destination', 'fail')
        before = self.world.files(self.uuid)
        self.assertRaises(exceptions.DriverError, self.b.rollback_live_migration_at_destination, self.plan)
        self.assertEqual(before, self.world.files(self.uuid))
        self.b.rollback_live_migration_at_destination(self.plan)
        self.assertEqual([], self.world.files(self.uuid, 'beta'))

    def test_fail_after_takes_effect(self):
        self.world.inject('alpha', 'live_migration', 'fail-after')
        self.assertRaises(exceptions.DriverError, self.a.live_migration, self.plan, self.prepared)
        self.assertEqual({'beta': GuestState.RUNNING}, self.world.where(self.uuid))

    def test_a_fault_for_all_calls_of_all_methods_holds_until_it_is_released(self):
        self.world.inject('beta', '*', 'fail', times=-1)
        for _ in range(3):
            self.assertRaises(exceptions.DriverError, self.b.locate, self.uuid)
        self.assertEqual(facts.Job(), self.b.progress(self.uuid))
        self.world.release('beta')
        self.assertEqual(GuestState.ABSENT, self.b.locate(self.uuid).state)

    def test_hang_lasts_until_it_is_released(self):
        self.world.inject('beta', 'post_live_migration_at_destination', 'hang')
        self.a.live_migration(self.plan, self.prepared)
        thread = concurrency.native_thread(self.b.post_live_migration_at_destination, self.plan)
        time.sleep(0.3)
        self.assertTrue(thread.is_alive())
        self.assertNotEqual('', self.harness.marker(self.b, self.uuid))
        self.world.release('beta', 'post_live_migration_at_destination')
        hands.wait_for(lambda: not thread.is_alive(), 'the call that hung', 10)
        self.assertEqual('', self.harness.marker(self.b, self.uuid))

    def test_slow_takes_its_time_and_then_works(self):
        self.world.inject('alpha', 'stop_instance', 'slow:0.3')
        began = time.monotonic()
        self.a.stop_instance(self.uuid, 0)
        self.assertGreaterEqual(time.monotonic() - began, 0.3)
        self.assertEqual({'alpha': GuestState.OFF}, self.world.where(self.uuid))

    def test_faults_of_the_configuration_apply_to_every_call(self):
        driver = FakeDriver(fake_conf(self.harness.name, faults=['locate=fail']), 'alpha')
        driver.start()
        for _ in range(2):
            self.assertRaises(exceptions.DriverError, driver.locate, self.uuid)
        self.assertTrue(driver.inventory())

    def test_a_fault_that_does_not_exist_is_refused(self):
        for action in ('explode', 'slow:soon', 'slow:-1', ''):
            self.assertRaises(exceptions.InvalidRequest, self.world.inject, 'alpha', 'locate', action)
        driver = FakeDriver(fake_conf(self.harness.name, faults=['locate']), 'alpha')
        self.assertRaises(exceptions.InvalidRequest, driver.start)

    def test_a_host_that_is_down_answers_nothing_and_its_guests_go_on(self):
        self.world.host_down('alpha')
        guest = facts.Guest(uuid=self.uuid, name='x')
        for act in (self.a.start, self.a.host_facts, self.a.inventory, lambda: self.a.locate(self.uuid),
                    lambda: self.a.check_can_live_migrate_source(guest), lambda: self.a.check_can_live_migrate_destination(guest),
                    lambda: self.a.live_migration(self.plan, {}), lambda: self.a.rollback_live_migration_at_source(self.plan),
                    lambda: self.a.post_live_migration_at_source(self.plan), lambda: self.a.abort_live_migration(self.uuid),
                    lambda: self.a.force_complete_live_migration(self.uuid), lambda: self.a.stop_instance(self.uuid, 5),
                    lambda: self.a.start_instance(self.uuid), lambda: self.a.delete_instance(self.uuid)):
            self.assertRaises(exceptions.DriverError, act)
        self.assertEqual({'alpha': GuestState.RUNNING}, self.world.where(self.uuid))
        self.world.host_up('alpha')
        self.assertEqual(GuestState.RUNNING, self.a.locate(self.uuid).state)

    def test_a_destination_that_is_down_refuses_the_job(self):
        self.world.host_down('beta')
        self.assertRaises(exceptions.DriverError, self.a.live_migration, self.plan, self.prepared)
        self.assertEqual({'alpha': GuestState.RUNNING}, self.world.where(self.uuid))

    def test_a_crash_of_the_source_turns_its_guests_off_and_fails_the_job(self):
        outcome = self.slowly()
        self.world.host_crash('alpha')
        self.assertIsInstance(outcome.wait(10).error, exceptions.DriverError)
        self.assertEqual({'alpha': GuestState.OFF}, self.world.where(self.uuid))
        self.assertEqual([], self.world.check())

    def test_a_crash_of_the_destination_fails_the_job_and_the_guest_goes_on(self):
        outcome = self.slowly()
        self.world.host_crash('beta')
        self.assertIsInstance(outcome.wait(10).error, exceptions.DriverError)
        self.assertEqual({'alpha': GuestState.RUNNING}, self.world.where(self.uuid))

    def test_a_lost_finish_leaves_both_ends_as_recovery_must_expect_them(self):
        outcome = self.slowly()
        self.assertTrue(self.world.fail_job(self.uuid, leave_paused=True, leave_incoming=True))
        self.assertIsInstance(outcome.wait(10).error, exceptions.DriverError)
        here, there = self.a.locate(self.uuid), self.b.locate(self.uuid)
        self.assertEqual((GuestState.PAUSED, PauseReason.MIGRATION, False), (here.state, here.reason, here.job_active))
        self.assertEqual(GuestState.INCOMING, there.state)
        self.b.rollback_live_migration_at_destination(self.plan)
        self.a.rollback_live_migration_at_source(self.plan)
        self.assertEqual(({'alpha': GuestState.RUNNING}, [], []),
                         (self.world.where(self.uuid), self.world.check(), self.world.leftovers(self.uuid)))

    def test_finish_job_ends_a_long_job_well(self):
        outcome = self.slowly()
        self.assertTrue(self.world.finish_job(self.uuid))
        self.assertIsNone(outcome.wait(10).error)
        self.assertEqual({'beta': GuestState.RUNNING}, self.world.where(self.uuid))
        self.assertFalse(self.world.finish_job(self.uuid))

    def test_a_deaf_guest_is_cut_off_after_the_time(self):
        self.world.set_deaf(self.uuid)
        began = time.monotonic()
        self.a.stop_instance(self.uuid, 1)
        self.assertGreaterEqual(time.monotonic() - began, 1)
        self.assertEqual({'alpha': GuestState.OFF}, self.world.where(self.uuid))

    def test_a_guest_that_a_user_paused_arrives_paused(self):
        self.harness.pause(self.a, self.uuid)
        self.a.live_migration(self.plan, self.prepared)
        self.assertEqual({'beta': GuestState.PAUSED}, self.world.where(self.uuid))
        self.harness.resume(self.b, self.uuid)
        self.assertEqual([], self.world.check())

    def test_a_plan_for_another_host_is_refused(self):
        for act in (self.b.live_migration, lambda plan, _: self.b.post_live_migration_at_source(plan),
                    lambda plan, _: self.a.pre_live_migration(plan), lambda plan, _: self.a.rollback_live_migration_at_destination(plan)):
            self.assertRaises(exceptions.InvalidRequest, act, self.plan, {})


class TestHistory(FakeCase):
    """Every mutating call is written down, with what came of it."""

    def test_calls_results_and_whether_they_changed_anything(self):
        self.b.pre_live_migration(self.plan)
        self.a.live_migration(self.plan, self.prepared)
        self.assertRaises(exceptions.PreconditionFailed, self.b.rollback_live_migration_at_destination, self.plan)
        calls = [(c.host, c.method, c.migration != '', c.result, c.changed) for c in self.world.history(self.uuid)]
        self.assertEqual([('alpha', 'create_instance', False, 'ok', True), ('alpha', 'start_instance', False, 'ok', True),
                          ('beta', 'pre_live_migration', True, 'ok', True), ('beta', 'pre_live_migration', True, 'ok', False),
                          ('alpha', 'live_migration', True, 'completed', True),
                          ('beta', 'rollback_live_migration_at_destination', True, 'PreconditionFailed', False)], calls)

    def test_a_repeated_live_migration_joins_the_job_and_starts_no_second(self):
        first = self.slowly()
        second = Outcome(self.a, self.plan, self.prepared)
        hands.wait_for(lambda: len(self.world.history(self.uuid, 'live_migration')) == 2, 'the second call', 10)
        self.world.finish_job(self.uuid)
        self.assertEqual(first.wait(10).result, second.wait(10).result)
        self.assertEqual(first.result, self.a.live_migration(self.plan, self.prepared))
        self.assertEqual(['completed', 'joined', 'joined'], [c.result for c in self.world.history(self.uuid, 'live_migration')])
        self.assertEqual(1, len(self.world.jobs(self.uuid)))

    def test_stop_of_the_driver_lets_go_of_the_call_and_not_of_the_job(self):
        outcome = self.slowly()
        self.a.stop()
        self.assertIsInstance(outcome.wait(10).error, exceptions.DriverError)
        self.assertEqual('active', self.world.jobs(self.uuid)[0]['state'])


class TestClosing(unittest.TestCase):
    """A world is closed while simulated calls are in it, as at the end of a test whose agents hang."""

    NAMES = 'memory:closing-{number}', '{folder}/{number}.db'

    def test_a_world_that_is_closed_while_native_threads_use_it(self):
        """Given threads in the middle of transactions, when the world is closed, each gets an error in words; Python does not crash."""
        for name in self.NAMES:
            with tempfile.TemporaryDirectory() as folder:
                for number in range(40):
                    self.close_in_use(name.format(number=number, folder=folder))

    def close_in_use(self, name):
        store = open_store(name)
        began, ended = concurrency.native_queue(), concurrency.native_queue()
        for _ in range(3):
            concurrency.native_thread(self.use, store, began, ended)
        hands.wait_for(lambda: began.qsize() > 6, 'transactions', 20)
        forget(name)
        hands.wait_for(lambda: ended.qsize() == 3, 'the end of the threads', 20)
        self.assertEqual([exceptions.DriverError] * 3, [type(ended.get_nowait()) for _ in range(3)])
        store.close()

    @staticmethod
    def use(store, began, ended):
        """Read and write until that fails."""
        try:
            while True:
                store.version()
                with store.write() as db:
                    db.execute('INSERT INTO violation (words) VALUES (?)', ('w' * 20000,))
                    db.execute('SELECT count(*), sum(length(words)) FROM violation').fetchall()
                began.put(None)
        except Exception as error:  # noqa: BLE001 - handed to the test
            ended.put(error)


class TestScale(unittest.TestCase):
    """Fifty hosts, a thousand guests, five hundred jobs in flight."""

    def make_name(self):
        """Name a new world."""
        return f'memory:{uuid.uuid4()}'

    def setUp(self):
        super().setUp()
        self.name = self.make_name()
        self.world = World(self.name)
        self.addCleanup(self.world.forget)
        conf = fake_conf(self.name, migration_seconds=3600)
        self.drivers = [FakeDriver(conf, f'host{i:02}') for i in range(50)]
        for driver in self.drivers:
            driver.start()
        self.uuids = [str(uuid.uuid4()) for _ in range(1000)]
        self.world.add_guests({'host': f'host{i % 50:02}', 'uuid': u, 'disks': (self.world.disk(u, PRIVATE),)}
                              for i, u in enumerate(self.uuids))

    def test_five_hundred_waiting_jobs_cost_no_time(self):
        outcomes = []
        for number, uuid_ in enumerate(self.uuids[:500]):
            source, destination = self.drivers[number % 50], self.drivers[(number + 1) % 50]
            plan = hands.plan_for(source, destination, uuid_)
            outcomes.append(Outcome(source, plan, destination.pre_live_migration(plan)))
        hands.wait_for(lambda: sum(j['state'] == 'active' for j in self.world.jobs()) == 500, 'five hundred jobs', 60)
        cpu, began = time.process_time(), time.monotonic()
        time.sleep(1.0)
        spent = (time.process_time() - cpu) / (time.monotonic() - began)
        self.assertLess(spent, 0.1)
        self.assertTrue(all(len(d.inventory()) >= 20 for d in self.drivers))
        for uuid_ in self.uuids[:500]:
            self.world.finish_job(uuid_)
        for outcome in outcomes:
            self.assertIsNone(outcome.wait(60).error)
        self.assertEqual([], self.world.check())


class TestScaleInAFile(TestScale):
    """The same in a file."""

    def make_name(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return os.path.join(directory.name, 'world.db')
