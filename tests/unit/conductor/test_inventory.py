"""What heartbeats teach the catalogue, and what they must not: nothing is deleted, nothing locked touched, nothing moved on one word."""
import types
import uuid

import sqlalchemy as sa

from migrator.compute import parts
from migrator.conductor.db import catalogue, hosts, ledger, schema, tables
from migrator.conductor.db.database import Database, now_ms
from migrator.conductor.inventory import Inventory, compare
from migrator.rpc import facts
from migrator.states import GuestState
from tests import base

ID = '11111111-1111-4111-8111-111111111111'


def guest(state=GuestState.RUNNING, uuid_=ID, **more):
    """What a host says of a guest."""
    return facts.Guest(uuid=uuid_, **{'name': 'web', 'state': state, 'memory_mib': 64, 'vcpus': 1, **more})


def row(host='alpha', state='running', locked_by=None, **more):
    """What the catalogue says of it."""
    return types.SimpleNamespace(**{**catalogue.values(guest(), host), 'uuid': ID, 'state': state, 'locked_by': locked_by,
                                    'sighted_host': '', 'sighted_state': '', **more})


class CompareTest(base.TestCase):

    def compare(self, host='alpha', guests=(), gone=(), rows=()):
        return compare(host, list(guests), list(gone), {r.uuid: r for r in rows})

    def assert_nothing(self, changes):
        self.assertEqual(({}, {}, []), (changes.insert, changes.update, changes.unknown))

    def test_a_new_guest_is_found(self):
        self.assertEqual({ID: catalogue.values(guest(), 'alpha')}, self.compare(guests=[guest()]).insert)

    def test_what_is_known_changes_nothing(self):
        self.assert_nothing(self.compare(guests=[guest()], rows=[row()]))

    def test_a_change_at_its_host_is_learned(self):
        for changed, column in ((guest(GuestState.OFF), 'state'), (guest(memory_mib=128), 'memory_mib'), (guest(name='web-2'), 'name'),
                                (guest(note='stands still'), 'note')):
            update = self.compare(guests=[changed], rows=[row()]).update
            self.assertEqual(catalogue.values(changed, 'alpha')[column], update[ID][column])

    def test_a_guest_that_is_missing_becomes_unknown(self):
        changes = self.compare(gone=[ID], rows=[row()])
        self.assertEqual(([ID], {}, {}), (changes.unknown, changes.update, changes.insert))

    def test_a_guest_that_another_host_has_is_not_lost_here(self):
        self.assert_nothing(self.compare(gone=[ID], rows=[row(host='beta')]))

    def test_a_guest_that_nobody_knows_is_not_lost(self):
        self.assert_nothing(self.compare(gone=[ID]))

    def test_a_locked_guest_is_left_alone(self):
        locked = row(locked_by='m-1')
        self.assert_nothing(self.compare(guests=[guest(GuestState.OFF)], rows=[locked]))
        self.assert_nothing(self.compare(gone=[ID], rows=[locked]))
        self.assert_nothing(self.compare('beta', guests=[guest()], rows=[locked]))
        self.assert_nothing(self.compare('beta', guests=[guest()], rows=[row(state='unknown', locked_by='m-1')]))

    def test_what_was_left_out_is_asked_for_again(self):
        locked = row(locked_by='m-1')
        self.assertFalse(self.compare(guests=[guest()], rows=[locked]).missed)
        self.assertFalse(self.compare(guests=[guest(GuestState.OFF)], rows=[row()]).missed)
        self.assertFalse(self.compare('beta', gone=[ID], rows=[locked]).missed)
        self.assertTrue(self.compare(guests=[guest(GuestState.OFF)], rows=[locked]).missed)
        self.assertTrue(self.compare(gone=[ID], rows=[locked]).missed)
        self.assertTrue(self.compare('beta', guests=[guest()], rows=[locked]).missed)
        self.assertTrue(self.compare('beta', guests=[guest()], rows=[row('alpha')]).missed)     # alpha has not let go of it yet

    def test_adopted_only_when_it_runs_here_and_its_host_does_not_know_it(self):
        changes = self.compare('beta', guests=[guest()], rows=[row('alpha', state='unknown')])
        self.assertEqual('beta', changes.update[ID]['host'])
        self.assertIn('adopted', changes.odd[0])

    def test_not_adopted_while_its_host_still_has_it(self):
        for state in ('running', 'paused', 'stopped', 'building'):
            changes = self.compare('beta', guests=[guest()], rows=[row('alpha', state=state)])
            self.assert_nothing(changes)
            self.assertIn(f'has it {state} on alpha', changes.odd[0])

    def test_not_adopted_unless_it_runs_here(self):
        for state in (GuestState.OFF, GuestState.PAUSED):
            self.assert_nothing(self.compare('beta', guests=[guest(state)], rows=[row('alpha', state='unknown')]))

    def test_one_that_runs_or_is_paused_elsewhere_is_sighted_once(self):
        for state in (GuestState.RUNNING, GuestState.PAUSED):
            seen = {'sighted_host': 'beta', 'sighted_state': state.value}
            changes = self.compare('beta', guests=[guest(state)], rows=[row('alpha', state='stopped')])
            self.assertEqual(({ID: seen}, 1), (changes.sighted, len(changes.odd)))
            known = self.compare('beta', guests=[guest(state)], rows=[row('alpha', state='stopped', **seen)])
            self.assertEqual(({}, []), (known.sighted, known.odd))
            self.assertEqual({}, self.compare('gamma', guests=[guest(state)], rows=[row('alpha', **seen)]).sighted)

    def test_a_sighting_ends_when_its_host_has_it_no_more_or_is_its_home(self):
        sighted = {'sighted_host': 'beta', 'sighted_state': 'running'}
        nowhere = {ID: {'sighted_host': '', 'sighted_state': ''}}
        self.assertEqual(nowhere, self.compare('beta', gone=[ID], rows=[row('alpha', **sighted)]).sighted)
        self.assertEqual(nowhere, self.compare('beta', guests=[guest(GuestState.OFF)], rows=[row('alpha', **sighted)]).sighted)
        self.assertEqual(nowhere, self.compare('beta', guests=[guest()], rows=[row('beta', **sighted)]).sighted)
        self.assertEqual({}, self.compare('alpha', guests=[guest()], rows=[row('alpha', **sighted)]).sighted)
        self.assertEqual({}, self.compare('gamma', gone=[ID], rows=[row('alpha', **sighted)]).sighted)

    def test_a_definition_elsewhere_or_a_guest_that_is_worked_on_is_no_sighting(self):
        self.assertEqual({}, self.compare('beta', guests=[guest(GuestState.OFF)], rows=[row('alpha')]).sighted)
        locked = row('alpha', locked_by='m-1', sighted_host='beta', sighted_state='running')
        self.assertEqual({}, self.compare('beta', guests=[guest()], rows=[row('alpha', locked_by='m-1')]).sighted)
        changes = self.compare('beta', gone=[ID], rows=[locked])
        self.assertEqual(({}, True), (changes.sighted, changes.missed))


class BeatCase(base.TestCase):
    """A database, and hosts that beat."""

    def setUp(self):
        super().setUp()
        self.database = Database(f'sqlite:///{self.temp_dir}/m.db')
        self.addCleanup(self.database.dispose)
        schema.upgrade(self.database)
        self.inventory = Inventory(self.database)
        self.number = 0

    def beat(self, *guests, host='alpha', full=True, sequence=None, process='p-1', **more):
        self.number = sequence or self.number + 1
        return self.inventory.heartbeat(facts.Heartbeat(
            host=host, process_id=process, sequence=self.number, full=full, guests=guests, monotonic=5.0,
            facts=facts.Host(hypervisor_name='h'), **more))


class HeartbeatTest(BeatCase):

    def rows(self):
        return {r.uuid: (r.host, r.state) for r in self.database.run(catalogue.listing)}

    def lock(self, uuid_=ID):
        self.database.run(lambda tx: ledger.lock(tx, catalogue.resource(uuid_), str(uuid.uuid4())))

    def service(self, host='alpha'):
        return self.database.run(lambda tx: tx.execute(sa.select(tables.service).where(tables.service.c.host == host)).one())

    def test_a_guest_is_listed_once_however_many_agents_its_host_has(self):
        """Given a volume agent of the same name that was never heard of, then the guest's host is as its compute agent has it."""
        self.beat(guest())
        self.database.run(lambda tx: tx.execute(sa.insert(tables.service).values(
            host='alpha', kind='volume', last_seen=0, facts={}, enabled=True, disabled_reason='', places=0)))
        [row] = self.database.run(catalogue.listing)
        self.assertEqual(self.database.run(hosts.listing)[0].last_seen, row.host_seen)

    def test_the_first_heartbeat_makes_the_host(self):
        self.assertEqual({'resync': False}, self.beat(guest()))
        self.assertEqual((True, 0, 'p-1'), (self.service().enabled, self.service().places, self.service().process_id))
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())

    def test_a_full_list_without_a_guest_makes_it_unknown_and_its_return_known(self):
        self.beat(guest())
        self.beat()
        self.assertEqual({ID: ('alpha', 'unknown')}, self.rows())
        self.beat(guest(GuestState.OFF))
        self.assertEqual({ID: ('alpha', 'stopped')}, self.rows())

    def test_a_partial_list_says_nothing_of_what_it_does_not_name(self):
        self.beat(guest())
        self.beat(full=False)
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())
        self.beat(full=False, gone=(ID,))
        self.assertEqual({ID: ('alpha', 'unknown')}, self.rows())

    def test_an_arriving_guest_is_nothing_of_this_host(self):
        self.beat(guest(GuestState.INCOMING))
        self.assertEqual({}, self.rows())

    def test_an_arriving_guest_is_not_missing_at_its_own_host(self):
        self.beat(guest())
        self.beat(guest(GuestState.INCOMING))
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())

    def test_a_locked_guest_is_left_alone(self):
        self.beat(guest())
        self.lock()
        self.assertEqual({'resync': False}, self.beat(guest()))
        for answer in (self.beat(), self.beat(guest(GuestState.OFF)), self.beat(guest(), host='beta', sequence=1)):
            self.assertEqual({'resync': True}, answer)
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())

    def test_what_happened_under_the_lock_is_learned_after_it(self):
        self.beat(guest())
        self.lock()
        self.beat(guest(GuestState.OFF), full=False)
        self.database.run(lambda tx: tx.execute(sa.delete(tables.resource_lock)))
        self.beat(guest(GuestState.OFF))                        # everything, for it was asked for
        self.assertEqual({ID: ('alpha', 'stopped')}, self.rows())

    def end_work(self, ago=0):
        """A workflow on the guest ended so many milliseconds ago."""
        words = {'kind': 'instance_stop', 'instance_name': 'web', 'source_host': 'alpha', 'status': 'completed', 'phase': 'ended',
                 'direction': 'forward', 'request': {}, 'policy': {}, 'plan': {}, 'facts': {}, 'progress': {}, 'begun': []}
        self.database.run(lambda tx: tx.execute(sa.insert(tables.migration).values(
            id=str(uuid.uuid4()), instance_uuid=ID, request_id=str(uuid.uuid4()), created_at=1, updated_at=1, error='', reason='',
            finished_at=now_ms() - ago, **words)))

    def test_a_look_from_before_the_end_of_a_workflow_is_outdated(self):
        self.end_work()                                         # it was deleted; this was seen before that, and arrives late
        self.assertEqual({'resync': True}, self.beat(guest(), looked=4.9))
        self.assertEqual({}, self.rows())

    def test_nor_does_it_change_or_miss_anything(self):
        self.beat(guest(), looked=4.0)
        self.end_work()
        self.assertEqual({'resync': True}, self.beat(guest(GuestState.OFF), looked=4.9))
        self.assertEqual({'resync': True}, self.beat(looked=4.9))
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())

    def test_a_look_from_after_it_is_believed(self):
        self.beat(guest())
        self.end_work(ago=2000)
        self.assertEqual({'resync': False}, self.beat(guest(GuestState.OFF), looked=4.9))
        self.assertEqual({ID: ('alpha', 'stopped')}, self.rows())
        self.assertEqual({'resync': True}, self.beat(looked=2.9))          # the hypervisor took its time
        self.assertEqual({ID: ('alpha', 'stopped')}, self.rows())

    def sighting(self):
        row_ = self.database.run(catalogue.listing)[0]
        return row_.sighted_host, row_.sighted_state

    def test_a_sighting_is_stored_until_its_host_has_it_no_more(self):
        self.beat(guest(GuestState.OFF))
        self.beat(guest(), host='beta', sequence=1)
        self.assertEqual(('beta', 'running'), self.sighting())
        self.beat(guest(GuestState.OFF), sequence=9)
        self.assertEqual((('beta', 'running'), {ID: ('alpha', 'stopped')}), (self.sighting(), self.rows()))
        self.beat(host='beta', sequence=2)                      # a full list without it
        self.assertEqual((('', ''), {ID: ('alpha', 'stopped')}), (self.sighting(), self.rows()))

    def test_a_sighting_is_no_more_when_it_is_adopted(self):
        self.beat(guest(GuestState.OFF))
        self.beat(guest(), host='beta', sequence=1)
        self.beat(sequence=9)
        self.beat(guest(), host='beta', sequence=2)
        self.assertEqual((('', ''), {ID: ('beta', 'running')}), (self.sighting(), self.rows()))

    def test_a_look_from_before_the_end_of_a_workflow_is_no_sighting(self):
        self.beat(guest())
        self.beat(host='beta', sequence=1, looked=1.0)
        self.end_work()                                         # it moved from beta to alpha, say
        self.assertEqual({'resync': True}, self.beat(guest(), host='beta', sequence=2, looked=4.9))
        self.assertEqual(('', ''), self.sighting())

    def test_adopted_after_both_have_spoken(self):
        self.beat(guest())
        self.beat(guest(), host='beta', sequence=1)
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())
        self.beat(sequence=9)                                   # alpha: I do not know it
        self.beat(guest(), host='beta', sequence=2)
        self.assertEqual({ID: ('beta', 'running')}, self.rows())

    def test_a_host_that_is_down_keeps_its_guests(self):
        self.beat(guest())
        self.beat(host='beta', sequence=1)
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())

    def test_a_late_or_doubled_heartbeat_changes_nothing(self):
        self.beat(guest(), sequence=5)
        for sequence in (5, 4):
            self.assertEqual({'resync': False}, self.beat(sequence=sequence))
        self.assertEqual((5, {ID: ('alpha', 'running')}), (self.service().sequence, self.rows()))

    def test_a_gap_asks_for_everything_and_believes_nothing(self):
        self.beat(guest(), sequence=1)
        self.assertEqual({'resync': True}, self.beat(full=False, gone=(ID,), sequence=3))
        self.assertEqual({ID: ('alpha', 'running')}, self.rows())
        self.assertEqual({'resync': False}, self.beat(guest(), sequence=4))

    def test_a_new_process_that_begins_with_a_part_is_asked_for_everything(self):
        self.beat(guest())
        self.assertEqual({'resync': True}, self.beat(full=False, sequence=1, process='p-2'))

    def test_a_heartbeat_keeps_what_an_operator_decided(self):
        self.beat()
        self.database.run(lambda tx: tx.execute(sa.update(tables.service).values(enabled=False, disabled_reason='repair', places=2)))
        self.beat()
        self.assertEqual((False, 'repair', 2), (self.service().enabled, self.service().disabled_reason, self.service().places))

    def test_a_hypervisor_that_cannot_be_asked_keeps_the_last_facts(self):
        self.beat()
        self.inventory.heartbeat(facts.Heartbeat(host='alpha', process_id='p-1', sequence=2))
        self.assertEqual('h', self.service().facts['hypervisor_name'])

    def test_many_guests(self):
        many = [guest(uuid_=str(uuid.uuid4()), name=f'web-{n}') for n in range(1200)]
        self.beat(*many)
        self.assertEqual(1200, len(self.rows()) + 200)          # a listing has 1000 rows at most
        self.beat(*many[:10])
        with self.database.engine.connect() as db:
            states = dict(db.execute(sa.select(tables.instance.c.state, sa.func.count()).group_by(tables.instance.c.state)).all())
        self.assertEqual({'running': 10, 'unknown': 1190}, states)


class PartsTest(BeatCase):
    """A list in parts: each proves absence within its range, and nothing beyond it."""

    def states(self):
        with self.database.engine.connect() as db:
            return dict(db.execute(sa.select(tables.instance.c.uuid, tables.instance.c.state)).all())

    def part(self, *guests, **more):
        return self.beat(*guests, full=False, complete=True, **more)

    def setUp(self):
        super().setUp()
        self.uuids = sorted(str(uuid.uuid4()) for _ in range(6))
        self.guests = [guest(uuid_=known) for known in self.uuids]

    def test_absence_is_concluded_within_the_range_only(self):
        self.beat(*self.guests)
        self.assertEqual({'resync': False}, self.part(self.guests[2], above=self.uuids[0], upto=self.uuids[3]))
        states = self.states()
        self.assertEqual(['running', 'unknown', 'running', 'unknown', 'running', 'running'], [states[known] for known in self.uuids])

    def test_a_new_process_that_begins_with_a_part_is_believed_so_far(self):
        self.beat(*self.guests)
        self.assertEqual({'resync': False}, self.part(upto=self.uuids[0], process='p-2', sequence=1))
        self.assertEqual('unknown', self.states()[self.uuids[0]])
        self.assertEqual({'resync': False}, self.part(*self.guests[1:], above=self.uuids[0], sequence=2, process='p-2'))
        self.assertEqual({'resync': False}, self.beat(full=False, sequence=3, process='p-2'))
        self.assertEqual(5, list(self.states().values()).count('running'))

    def test_a_guest_that_is_only_named_is_not_absent(self):
        self.beat(*self.guests)
        self.part(*self.guests[1:5], named=(self.uuids[0], str(uuid.uuid4())))
        states = self.states()
        self.assertEqual(('running', 'unknown', 6), (states[self.uuids[0]], states[self.uuids[5]], len(states)))

    def test_five_thousand_guests_in_parts_and_then_without_some(self):
        many = [facts.Guest(uuid=str(uuid.uuid4()), name=f'web-{n}', state=GuestState.RUNNING) for n in range(5000)]
        for listed in (many, many[100:]):
            for one in parts.split([parts.sized(g) for g in listed], 1 << 18):
                self.assertEqual({'resync': False}, self.part(*one.guests, named=one.named, above=one.above, upto=one.upto))
        states = list(self.states().values())
        self.assertEqual((4900, 100), (states.count('running'), states.count('unknown')))


class LateTest(BeatCase):
    """A message that was overtaken is no sign of life."""

    def process(self):
        return self.database.run(lambda tx: tx.execute(sa.select(tables.service.c.process_id)).scalar())

    def told(self, process, boot, monotonic, sequence=7):
        return self.inventory.heartbeat(facts.Heartbeat(host='alpha', process_id=process, host_boot_id=boot, sequence=sequence, full=True,
                                                        monotonic=monotonic, facts=facts.Host(hypervisor_name='h')))

    def test_of_one_boot_the_later_clock_is_the_successor(self):
        self.told('p-1', 'boot-1', 100.0)
        self.told('p-2', 'boot-1', 110.0, sequence=1)
        self.assertEqual(({'resync': False}, 'p-2'), (self.told('p-1', 'boot-1', 105.0, sequence=8), self.process()))
        self.told('p-3', 'boot-1', 120.0, sequence=1)
        self.told('p-1', 'boot-1', 106.0, sequence=9)
        self.assertEqual('p-3', self.process())

    def test_after_a_restart_of_the_machine_the_former_process_does_not_come_back(self):
        self.told('p-1', 'boot-1', 100000.0)
        self.told('p-2', 'boot-2', 50.0, sequence=1)
        self.assertEqual('p-2', self.process())
        self.told('p-1', 'boot-1', 100001.0, sequence=8)
        self.assertEqual('p-2', self.process())

    def test_after_a_long_silence_nothing_is_late(self):
        self.told('p-1', 'boot-1', 100.0)
        self.told('p-2', 'boot-1', 110.0)
        self.database.run(lambda tx: tx.execute(sa.update(tables.service).values(last_seen=now_ms() - 3_600_000)))
        self.told('p-1', 'boot-1', 20.0, sequence=1)
        self.assertEqual('p-1', self.process())

    def test_what_is_late_wakes_nobody_and_teaches_nothing(self):
        self.told('p-1', 'boot-1', 100.0)
        self.told('p-2', 'boot-1', 110.0)
        self.inventory.heartbeat(facts.Heartbeat(host='alpha', process_id='p-1', host_boot_id='boot-1', sequence=8, full=True,
                                                 monotonic=101.0, guests=(guest(),)))
        self.assertEqual([], self.database.run(catalogue.listing))


class QuietTest(BeatCase):
    """An agent that tells of a job by its heartbeats need not be asked for it."""

    def setUp(self):
        super().setUp()
        self.inventory = Inventory(self.database, poll_interval=30)

    def wakeup(self, beat=True, due=5_000, told=True, **values):
        """Have a migration that is looked at in `due` ms, and let its agent tell of it (told: and be believed).

        Returns in how many ms it is looked at then.
        """
        known = str(uuid.uuid4())
        words = {'kind': 'live_migration', 'source_host': 'alpha', 'status': 'running', 'phase': 'operation', 'step': 'live_migration',
                 'direction': 'forward', 'request': {}, 'policy': {}, 'plan': {}, 'facts': {}, 'progress': {}, 'begun': [], 'reason': ''}
        self.database.run(lambda tx: tx.execute(sa.insert(tables.migration).values(
            id=known, instance_uuid=ID, request_id=known, created_at=1, updated_at=1, error='', next_wakeup=now_ms() + due,
            **words | values)))
        if beat:
            self.beat(progress={known: {'active': True}})
        query = sa.select(tables.migration.c.next_wakeup - now_ms(), tables.migration.c.progress).where(tables.migration.c.id == known)
        found = self.database.run(lambda tx: tx.execute(query).one())
        self.assertEqual({'active': True} if beat and told else {}, found[1])
        return found[0]

    def assert_not_put_off(self, **values):
        self.assertLessEqual(self.wakeup(**values), 5_000)

    def test_put_off_by_the_poll_interval(self):
        self.assertTrue(25_000 < self.wakeup() <= 30_000)
        self.assertTrue(25_000 < self.wakeup(due=-50) <= 30_000)
        self.assertTrue(55_000 < self.wakeup(due=60_000) <= 60_000)

    def test_what_is_due_sooner_stays_so(self):
        now = self.database.run(lambda tx: tx.execute(sa.select(now_ms())).scalar())
        self.assert_not_put_off(beat=False)
        self.assert_not_put_off(abort='user')
        self.assert_not_put_off(deadline=now + 20_000)
        self.assertGreater(self.wakeup(deadline=now + 90_000), 25_000)

    def test_another_hosts_word_does_not_count(self):
        self.assertLessEqual(self.wakeup(source_host='beta', told=False), 5_000)

    def test_a_workflow_that_does_something_else_by_now(self):
        self.assert_not_put_off(phase='observing')
        self.assert_not_put_off(status='finishing', step='post_live_migration_at_destination')
        self.assert_not_put_off(status='undoing', direction='undo')
        self.assert_not_put_off(status='needs_operator')
