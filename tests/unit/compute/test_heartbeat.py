"""The compute agent's sign of life: what it lists when, and that a silent hypervisor is not an empty one."""
import uuid

import fixtures

from migrator import exceptions
from migrator.compute import heartbeat as compute_heartbeat
from migrator.compute.heartbeat import HeartbeatLoop
from migrator.rpc import contract, facts
from migrator.states import GuestState
from tests.unit.compute.scripted import ManagerTestCase
from tests.unit.rpc import support


class HeartbeatTest(ManagerTestCase):

    def setUp(self):
        super().setUp()
        self.now = 50.0
        self.loop = HeartbeatLoop(self.driver, self.manager, self.operations, self.conductor, self.host, 'process-1', 'boot-1',
                                  interval=0.05, clock=lambda: self.now)
        self.a, self.b = (facts.Guest(uuid=str(uuid.uuid4()), name=name) for name in 'ab')
        self.driver.guests = {'a': self.a, 'b': self.b}

    def beat(self):
        self.loop.beat()
        return self.conductor.heartbeats[-1]

    def test_the_first_lists_all_and_later_ones_what_changed(self):
        first = self.beat()
        self.assertEqual((1, True, {self.a, self.b}, 4), (first.sequence, first.full, set(first.guests), first.facts.cpus))
        second = self.beat()
        self.assertEqual((2, False, (), ()), (second.sequence, second.full, second.guests, second.gone))
        changed = facts.Guest(uuid=self.a.uuid, name='a', state=GuestState.RUNNING)
        self.driver.guests = {'a': changed}
        third = self.beat()
        self.assertEqual((False, (changed,), (self.b.uuid,)), (third.full, third.guests, third.gone))

    def test_it_tells_who_and_when(self):
        beat = self.beat()
        self.assertEqual((self.host, 'process-1', 'boot-1', 50.0, contract.COMPUTE_VERSION, False),
                         (beat.host, beat.process_id, beat.host_boot_id, beat.monotonic, beat.rpc_version, beat.draining))
        self.operations.drain()
        self.assertTrue(self.beat().draining)
        self.assertEqual(beat, facts.from_wire(facts.Heartbeat, facts.to_wire(beat)))

    def test_a_conductor_that_asks_for_all_gets_all_next(self):
        self.conductor.answer = {'resync': True}
        self.beat()
        self.conductor.answer = {'resync': False}
        self.assertTrue(self.beat().full)
        self.assertFalse(self.beat().full)

    def test_after_one_that_may_be_lost_the_next_lists_all(self):
        self.beat()
        self.conductor.failing = exceptions.Unavailable('no database')
        self.beat()
        self.conductor.failing = None
        lists_all = self.beat()
        self.assertEqual((True, 2), (lists_all.full, len(lists_all.guests)))

    def test_every_nth_lists_all(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.heartbeat.FULL_EVERY', 3))
        self.assertEqual([True, False, True, False, False, True], [self.beat().full for _ in range(6)])

    def test_a_hypervisor_that_fails_is_not_an_empty_host(self):
        self.beat()
        for failure in (exceptions.DriverError('libvirtd is gone'), ValueError('a defect')):
            self.driver.results['inventory'] = failure
            silent = self.beat()
            self.assertEqual((False, (), (), 4), (silent.full, silent.guests, silent.gone, silent.facts.cpus))
        del self.driver.results['inventory']
        self.driver.guests = {'a': self.a}
        self.assertEqual((self.b.uuid,), self.beat().gone)

    def test_a_hypervisor_that_fails_at_first_is_listed_in_full_once_it_answers(self):
        self.driver.results['host_facts'] = exceptions.DriverError('libvirtd is gone')
        self.assertFalse(self.beat().full)
        del self.driver.results['host_facts']
        self.assertEqual((True, 2), (lambda h: (h.full, len(h.guests)))(self.beat()))

    def test_a_hypervisor_that_hangs_does_not_stop_the_heartbeat(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.heartbeat.LEAST_PATIENCE', 0.02))
        self.beat()
        _, go = self.driver.hold('inventory')
        for sequence in (2, 3):
            beat = self.beat()
            self.assertEqual((sequence, (), ()), (beat.sequence, beat.guests, beat.gone))
        self.assertEqual(2, len([c for c in self.driver.calls if c[0] == 'inventory']), 'it was asked again while it hung')
        go.set()
        del self.driver.gates['inventory']
        self.driver.guests = {'a': self.a}
        support.wait_for(lambda: self.beat().gone or self.conductor.heartbeats[-2].gone)

    def test_a_job_of_which_nothing_was_ever_known_is_not_told_of(self):
        entered, go = self.driver.hold('live_migration')
        self.driver.results['progress'] = facts.Job()
        self.begin('live_migration', prepared={})
        support.wait_for(entered.is_set)
        self.assertEqual({}, self.beat().progress)
        go.set()
        self.conductor.next_report()

    def test_running_migrations_are_told_of_and_asked_for_once_a_second(self):
        entered, go = self.driver.hold('live_migration')
        self.begin('live_migration', prepared={})
        support.wait_for(entered.is_set)
        for _ in range(3):
            beat = self.beat()
        self.assertEqual(2, beat.progress[self.plan.migration_id]['iteration'])
        self.assertEqual(1, len([c for c in self.driver.calls if c[0] == 'progress']))
        self.now += compute_heartbeat.PROGRESS_INTERVAL
        self.beat()
        self.assertEqual(2, len([c for c in self.driver.calls if c[0] == 'progress']))
        self.driver.results['progress'] = facts.Job()  # the driver cannot tell, or the job has just ended
        self.now += compute_heartbeat.PROGRESS_INTERVAL
        self.assertEqual(2, self.beat().progress[self.plan.migration_id]['iteration'])
        go.set()
        self.conductor.next_report()
        self.assertEqual({}, self.beat().progress)
