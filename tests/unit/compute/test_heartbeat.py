"""The compute agent's sign of life: what it lists when, and that a silent hypervisor is not an empty one."""
import dataclasses
import uuid

import fixtures

from migrator import exceptions
from migrator.compute import heartbeat as compute_heartbeat
from migrator.compute import parts
from migrator.compute.heartbeat import HeartbeatLoop
from migrator.rpc import contract, facts, wire
from migrator.states import GuestState
from tests import base
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

    def test_what_is_to_be_said_of_a_guest_goes_with_it_once(self):
        notes = {}
        self.loop = HeartbeatLoop(self.driver, self.manager, self.operations, self.conductor, self.host, 'process-1', 'boot-1',
                                  interval=0.05, clock=lambda: self.now, notes=lambda: notes)
        self.assertEqual({''}, {guest.note for guest in self.beat().guests})
        notes[self.b.uuid] = 'stands still'
        self.assertEqual([(self.b.uuid, 'stands still')], [(guest.uuid, guest.note) for guest in self.beat().guests])
        self.assertEqual((), self.beat().guests)

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


class ManyGuestsTest(ManagerTestCase):
    """A host with more guests than one message holds."""

    def setUp(self):
        super().setUp()
        self.loop = HeartbeatLoop(self.driver, self.manager, self.operations, self.conductor, self.host, 'process-1', 'boot-1', interval=5)
        disks = (facts.Disk(target='vda', directory='/var/lib/migrator', path='/var/lib/migrator/' + 'x' * 400),)
        self.driver.guests = {n: facts.Guest(uuid=str(uuid.uuid4()), name=f'web-{n}', disks=disks) for n in range(5000)}

    def beat(self):
        """Beat once; gives the messages that were sent for that, after a look at their size."""
        before = len(self.conductor.heartbeats)
        self.arrived = self.loop.beat()
        sent = self.conductor.heartbeats[before:]
        for one in sent:
            self.assertLess(wire.size({'heartbeat': facts.to_wire(one)}), contract.MAX_PAYLOAD)
            facts.from_wire(facts.Heartbeat, facts.to_wire(one))
        return sent

    def uuids(self):
        return sorted(guest.uuid for guest in self.driver.guests.values())

    def assert_whole(self, sent):
        """All guests, once, in parts without a gap."""
        self.assertEqual(self.uuids(), [u for one in sent for u in sorted([*(g.uuid for g in one.guests), *one.named])])
        self.assertEqual([*(one.upto for one in sent[:-1]), ''], [*(one.above for one in sent[1:]), sent[-1].upto])
        self.assertEqual(('', {(False, True)}), (sent[0].above, {(one.full, one.complete) for one in sent}))
        for one in sent:
            self.assertTrue(all(one.covers(g.uuid) for g in one.guests))

    def test_everything_goes_in_parts_and_then_what_changed(self):
        first = self.beat()
        self.assert_whole(first)
        self.assertGreater(len(first), 5)
        self.assertEqual(list(range(1, len(first) + 1)), [one.sequence for one in first])
        del self.driver.guests[17]
        self.assertEqual([(False, False, 0, 1)], [(b.full, b.complete, len(b.guests), len(b.gone)) for b in self.beat()])

    def test_a_change_that_is_too_large_is_told_as_everything(self):
        self.beat()
        self.driver.guests = {n: dataclasses.replace(g, state=GuestState.RUNNING) for n, g in self.driver.guests.items()}
        self.assert_whole(self.beat())
        self.assertEqual([0], [len(b.guests) for b in self.beat()])

    def test_a_part_that_is_lost_ends_the_round_and_the_next_tells_all(self):
        self.conductor.failing = exceptions.Unavailable('no database')
        self.assertEqual((1, False), (len(self.beat()), self.arrived))
        self.conductor.failing = None
        self.assert_whole(self.beat())
        self.assertTrue(self.arrived)

    def test_a_guest_that_cannot_be_described_is_named(self):
        odd = dataclasses.replace(self.driver.guests[3], disks=(facts.Disk(target='a disk'),))
        self.driver.guests = {3: odd, 4: self.driver.guests[4]}
        first, = self.beat()
        self.assertEqual((True, False, (odd.uuid,), (self.driver.guests[4],)), (first.complete, first.full, first.named, first.guests))
        self.driver.guests[3] = dataclasses.replace(odd, state=GuestState.RUNNING)
        second, = self.beat()
        self.assertEqual(((), (), ()), (second.guests, second.gone, second.named))
        self.assertEqual(1, self.log.output.count('web-3'))

    def test_a_guest_without_a_proper_uuid_keeps_nobody_from_being_told(self):
        self.driver.guests = {0: facts.Guest(uuid='NOT-ONE', name='odd'), 1: self.driver.guests[1]}
        for _ in range(3):
            self.beat()
        self.assertEqual((self.driver.guests[1],), self.conductor.heartbeats[0].guests)
        self.assertEqual(1, self.log.output.count('NOT-ONE'))


class SplitTest(base.TestCase):
    """The pure part of it."""

    def found(self, number, size=100, why=''):
        return [parts.Sized(facts.Guest(uuid=str(uuid.uuid4())), size, why) for _ in range(number)]

    def test_nothing_is_one_whole_list(self):
        self.assertEqual([parts.Part((), ())], parts.split([]))
        self.assertTrue(parts.split([])[0].whole)

    def test_what_fits_is_one_whole_list(self):
        found = self.found(10)
        one, = parts.split(found, 1000)
        self.assertEqual((True, {f.guest for f in found}), (one.whole, set(one.guests)))

    def test_five_thousand_in_parts_of_bounded_size(self):
        found = self.found(5000)
        told = parts.split(found, 10_050)
        self.assertEqual([100] * 50, [len(one.guests) for one in told])
        self.assertEqual(sorted(f.guest.uuid for f in found), [g.uuid for one in told for g in one.guests])
        stranger = str(uuid.uuid4())
        beats = [facts.Heartbeat(host='a', complete=True, above=one.above, upto=one.upto) for one in told]
        self.assertEqual(1, len([b for b in beats if b.covers(stranger)]))

    def test_one_that_is_too_large_or_odd_is_named_only(self):
        large = parts.sized(facts.Guest(uuid=str(uuid.uuid4()), name='x' * 500), 400)
        odd = parts.sized(facts.Guest(uuid=str(uuid.uuid4()), memory_mib=-1))
        self.assertIn('limit is 400', large.why)
        self.assertIn('memory_mib', odd.why)
        one, = parts.split([large, odd])
        self.assertEqual(((), {large.guest.uuid, odd.guest.uuid}, False), (one.guests, set(one.named), one.whole))
