"""Requests that meet: the same one twice, two for one guest, more than there is room for; and the life of an instance."""
import threading
import types
import uuid
from unittest import mock

from migrator import concurrency, exceptions
from migrator.conductor.db import catalogue
from migrator.states import GuestState
from tests.simulated import timeline
from tests.unit.conductor.test_live_migration import CloudTestCase


class RepeatedTest(CloudTestCase):

    def test_the_same_request_gives_the_same_migration(self):
        guest = self.cloud.create('web', 'alpha')
        first = self.api.live_migrate('web', 'beta', request_id='req-1')
        self.assertEqual(first['id'], self.api.live_migrate('web', 'beta', request_id='req-1')['id'])
        self.cloud.wait(first, 'completed')
        again = self.api.live_migrate('web', 'beta', request_id='req-1')        # the guest is there by now: still the same answer
        self.assertEqual((first['id'], 'completed'), (again['id'], again['status']))
        self.assertEqual(1, len(self.world.history(guest, 'live_migration')))

    def test_without_a_request_id_each_is_new(self):
        self.cloud.create('web', 'alpha')
        first = self.cloud.migrate('web', 'beta')
        self.assertNotEqual(first['request_id'], self.cloud.migrate('web', 'alpha')['request_id'])

    def test_at_once_from_many_over_two_conductors(self):
        guest = self.cloud.create('web', 'alpha')
        self.cloud.add_conductor()
        answers = at_once(8, lambda _: self.api.live_migrate('web', 'beta', request_id='req-1')['id'])
        self.assertEqual(1, len(set(answers)), answers)
        self.cloud.wait(answers[0], 'completed')
        self.cloud.assert_clean(guest, 'beta')
        self.assertEqual(1, len(self.world.history(guest, 'live_migration')))

    def test_taken_by_another_conductor_between_two_looks(self):
        """Given a request that another conductor takes just after this one has seen the guest free, then both answer the same migration."""
        self.cloud.create('web', 'alpha')
        original, late = catalogue.get, []

        def look(tx, instance):
            row = original(tx, instance)
            if late:
                return row
            late.append(row.locked_by)
            return types.SimpleNamespace(**{**row._mapping, 'locked_by': None})       # as it was before the other conductor's commit
        first = self.api.live_migrate('web', 'beta', request_id='req-1')
        with mock.patch.object(catalogue, 'get', look):
            self.assertEqual(first['id'], self.api.live_migrate('web', 'beta', request_id='req-1')['id'])
        self.assertEqual([first['id']], late)
        self.cloud.wait(first, 'completed')

    def test_an_instance_is_made_once(self):
        spec = {'uuid': str(uuid.uuid4()), 'name': 'web', 'memory_mib': 64}
        answers = at_once(6, lambda _: self.api.instance_create('alpha', spec, request_id='req-1')['id'])
        self.assertEqual(1, len(set(answers)), answers)
        self.cloud.wait(answers[0], 'completed')
        self.cloud.assert_clean(spec['uuid'], 'alpha')

    def test_a_request_id_is_good_for_one_request_only(self):
        """Given requests that were taken, when their ids come with anything else, then that is refused with what differs; as it was
        asked, each gives what the first asking began."""
        self.cloud.create('web', 'alpha')
        other = self.cloud.create('db', 'alpha')
        spec = {'uuid': str(uuid.uuid4()), 'name': 'new', 'memory_mib': 64, 'disks': [{'target': 'vda', 'size': 1 << 20}]}
        create, move, stop = self.api.instance_create, self.api.live_migrate, self.api.instance_stop
        for ask, good, others in (
                (create, {'host': 'alpha', 'spec': spec}, {
                    'host': {'host': 'beta'}, 'work': {'start': False}, 'spec': {'spec': {**spec, 'memory_mib': 65}},
                    'instance': {'spec': {**spec, 'uuid': str(uuid.uuid4())}}, 'the host and the spec': {
                        'host': 'beta', 'spec': {**spec, 'disks': [{'target': 'vda', 'size': 2 << 20}]}}}),
                (move, {'instance': 'web', 'destination_host': 'beta', 'options': {'bandwidth_mib': 100}}, {
                    'instance': {'instance': other}, 'destination': {'destination_host': 'gamma'},
                    'options': {'options': {'bandwidth_mib': 101}}}),
                (stop, {'instance': 'web', 'timeout': 5}, {'timeout': {'timeout': 6}, 'instance': {'instance': 'db'}})):
            first = ask(**good, request_id=f'req-{ask.__name__}')
            for _ in range(2):
                for differs, change in others.items():
                    error = self.assertRaises(exceptions.InvalidRequest, ask, **{**good, **change}, request_id=first['request_id'])
                    self.assertIn(first['id'], str(error))
                    self.assertIn(differs, str(error))
                self.assertEqual(first['id'], ask(**good, request_id=first['request_id'])['id'])
                self.cloud.wait(first, 'completed')
        error = self.assertRaises(exceptions.InvalidRequest, self.api.instance_start, 'web', request_id=first['request_id'])
        self.assertIn('what differs is the work', str(error))

    def test_two_different_creations_of_one_uuid(self):
        spec = {'uuid': str(uuid.uuid4()), 'name': 'web', 'memory_mib': 64}
        answers = at_once(4, lambda n: self.api.instance_create('alpha' if n % 2 else 'beta', spec))
        made = [a for a in answers if isinstance(a, dict)]
        self.assertEqual(1, len(made), answers)
        for lost in answers:
            self.assertIsInstance(lost, (dict, exceptions.ResourceLocked, exceptions.InstanceExists))
        self.cloud.wait(made[0], 'completed')
        self.cloud.assert_clean(spec['uuid'], made[0]['source_host'])


class NameTest(CloudTestCase):
    """A name is one guest's."""

    def spec(self, name='web'):
        return {'uuid': str(uuid.uuid4()), 'name': name, 'memory_mib': 64}

    def test_a_second_guest_of_a_name_is_refused_on_every_host(self):
        """Given a guest, when another one is to have its name, then that is refused with who has it, until that is gone."""
        guest = self.cloud.create('web', 'alpha', start=False)
        for host in ('alpha', 'beta'):
            error = self.assertRaises(exceptions.InstanceExists, self.api.instance_create, host, self.spec())
            self.assertIn(f'{guest} on alpha', str(error))
        self.cloud.create('Web', 'beta')
        self.cloud.wait(self.api.instance_delete('web'), 'completed')
        self.assertEqual({}, self.cloud.locks())
        self.cloud.create('web', 'beta')

    def test_of_several_that_are_made_at_once_one_gets_the_name(self):
        """Given creations of one name on two hosts at the same time, over two conductors, then one is made and the others are refused."""
        self.cloud.add_conductor()
        self.world.inject('*', 'create_instance', 'hang', times=-1)
        answers = at_once(6, lambda n: self.api.instance_create(('alpha', 'beta')[n % 2], self.spec()))
        made = [a for a in answers if isinstance(a, dict)]
        self.assertEqual((1, {'ResourceLocked'}), (len(made), {a.kind for a in answers if not isinstance(a, dict)}), answers)
        self.world.release()
        self.cloud.wait(made[0], 'completed')
        self.assertEqual([made[0]['instance_uuid']], [i['uuid'] for i in self.api.instances()])
        self.assertRaises(exceptions.InstanceExists, self.api.instance_create, 'beta', self.spec())

    def test_a_name_is_free_again_after_a_creation_that_failed(self):
        self.world.inject('alpha', 'create_instance', 'fail')
        self.cloud.wait(self.api.instance_create('alpha', self.spec()), 'failed')
        self.cloud.create('web', 'beta')

    def test_guests_that_were_found_with_one_name(self):
        """Given two hosts with a guest of the same name each, then the error for the name tells both, and their uuids will do."""
        guests = {host: self.world.add_guest(host, name='old', disks=()) for host in ('alpha', 'beta')}
        self.wait_for(lambda: len(self.api.instances()) == 2, 'both to be found')
        for ask in (self.api.instance_show, self.api.instance_stop, lambda name: self.api.live_migrate(name, 'beta')):
            error = self.assertRaises(exceptions.InvalidRequest, ask, 'old')
            self.assertIn(f'the name old; give the uuid of one: {guests["alpha"]} on alpha, {guests["beta"]} on beta', str(error))
        self.cloud.wait(self.api.instance_stop(guests['alpha'], timeout=0), 'completed')
        self.cloud.assert_clean(guests['alpha'], 'alpha', 'stopped')
        self.assertEqual('running', self.api.instance_show(guests['beta'])['state'])


class RaceTest(CloudTestCase):

    hosts = ('alpha', 'beta', 'gamma')

    def test_of_two_requests_for_one_guest_one_wins(self):
        guest = self.cloud.create('web', 'alpha')
        self.cloud.add_conductor()
        self.world.inject('*', 'pre_live_migration', 'hang', times=-1)
        answers = at_once(8, lambda n: self.api.live_migrate('web', ('beta', 'gamma')[n % 2]))
        self.world.release()
        won = [a for a in answers if isinstance(a, dict)]
        self.assertEqual(1, len(won), answers)
        self.assertEqual({'AlreadyMigrating'}, {a.kind for a in answers if not isinstance(a, dict)})
        self.cloud.wait(won[0], 'completed')
        self.cloud.assert_clean(guest, won[0]['destination_host'])
        self.assertEqual(1, len(self.world.history(guest, 'pre_live_migration')))


class CapTest(CloudTestCase):

    options = {'conductor__max_migrations_per_host': 2}

    def test_more_than_there_is_room_for_are_queued_and_all_arrive(self):
        guests = [self.cloud.create(f'web-{n}', 'alpha') for n in range(5)]
        self.world.inject('alpha', 'live_migration', 'hang', times=-1)
        moving = [self.api.live_migrate(guest, 'beta') for guest in guests]
        self.assertEqual(['checking'] * 2 + ['queued'] * 3, [m['status'] for m in moving])
        self.assertIn('waits for a free place', moving[4]['reason'])
        for migration in moving[:2]:
            self.cloud.wait(migration, 'running')
        self.assertEqual({'alpha': 2, 'beta': 2}, self.cloud.places())
        self.assertEqual(['queued'] * 3, [self.api.show(m['id'])['status'] for m in moving[2:]])
        self.world.release()
        for migration in moving:
            self.cloud.wait(migration, 'completed')
        for guest in guests:
            self.cloud.assert_clean(guest, 'beta')

    def test_an_aborted_place_in_the_queue_leaves_nothing(self):
        guests = [self.cloud.create(f'web-{n}', 'alpha') for n in range(3)]
        self.world.inject('beta', 'pre_live_migration', 'hang', times=-1)
        moving = [self.api.live_migrate(guest, 'beta') for guest in guests]
        self.assertEqual('queued', moving[2]['status'])
        self.assertEqual('cancelled', self.api.abort(moving[2]['id'])['status'])
        self.assertEqual([], self.world.history(guests[2], 'pre_live_migration'))
        self.assertEqual('', self.api.instance_show(guests[2])['locked_by'])
        self.world.release()
        for migration in moving[:2]:
            self.cloud.wait(migration, 'completed')
        self.cloud.assert_clean(guests[2], 'alpha')

    def test_what_is_queued_checks_again_when_it_is_let_in(self):
        guests = [self.cloud.create(f'web-{n}', 'alpha') for n in range(3)]
        self.world.inject('beta', 'pre_live_migration', 'hang', times=-1)
        moving = [self.api.live_migrate(guest, 'beta') for guest in guests]
        self.world.power_off(guests[2])
        self.world.release()
        self.assertIn('the guest is off at the source', self.cloud.wait(moving[2], 'failed')['error'])


class InstanceTest(CloudTestCase):

    def test_its_life(self):
        guest = self.cloud.create('web', 'alpha', disks=2)
        self.cloud.assert_clean(guest, 'alpha')
        self.wait_for(lambda: len(self.api.instance_show('web')['disks']) == 2, 'its disks to be known')
        self.cloud.wait(self.api.instance_stop('web', timeout=5), 'completed')
        self.cloud.assert_clean(guest, 'alpha', 'stopped')
        self.cloud.wait(self.api.instance_start('web'), 'completed')
        self.cloud.assert_clean(guest, 'alpha')
        self.cloud.migrate('web', 'beta')
        self.cloud.wait(self.api.instance_stop('web', timeout=0), 'completed')
        self.cloud.wait(self.api.instance_delete('web'), 'completed')
        self.assertEqual(({}, []), (self.world.where(guest), self.world.files(guest)))
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_show, guest)

    def test_defined_and_not_started(self):
        guest = self.cloud.create('web', 'alpha', start=False)
        self.cloud.assert_clean(guest, 'alpha', 'stopped')

    def test_one_that_cannot_start_is_not_left_behind(self):
        self.world.inject('alpha', 'start_instance', 'fail')
        guest = str(uuid.uuid4())
        made = self.api.instance_create('alpha', {'uuid': guest, 'name': 'web', 'disks': [{'target': 'vda', 'size': 1 << 20}]})
        view = self.cloud.wait(made, 'failed')
        self.assertIn('start_instance failed at alpha', view['error'])
        self.assertEqual(({}, []), (self.world.where(guest), self.world.files(guest)))
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_show, guest)
        self.assertEqual({}, self.cloud.locks())

    def test_one_that_was_started_all_the_same_is_stopped_and_removed(self):
        """Given a start that takes effect and is reported as failed, then what runs is stopped and nothing is left."""
        self.world.inject('alpha', 'start_instance', 'fail-after')
        guest = str(uuid.uuid4())
        made = self.api.instance_create('alpha', {'uuid': guest, 'name': 'web', 'disks': [{'target': 'vda', 'size': 1 << 20}]})
        view = self.cloud.wait(made, 'failed')
        self.assertEqual([], view['debts'])
        self.assertEqual(({}, []), (self.world.where(guest), self.world.files(guest)))
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_show, guest)

    def test_a_removal_that_failed_when_it_was_done_can_be_asked_for_again(self):
        """Given a removal that takes effect and is reported as failed, then the guest, which no host knows, can be removed again."""
        guest = self.cloud.create('web', 'alpha', start=False)
        self.world.inject('alpha', 'delete_instance', 'fail-after')
        self.cloud.wait(self.api.instance_delete(guest), 'failed')
        self.wait_for(lambda: self.api.instance_show(guest)['state'] == 'unknown', 'the host not to list it')
        self.cloud.wait(self.api.instance_delete(guest), 'completed')
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_show, guest)

    def test_a_guest_that_nobody_told_of_is_not_deleted_in_place_of_a_new_one(self):
        guest = str(uuid.uuid4())
        self.world.inject('alpha', 'inventory', 'fail', times=-1)          # the catalogue does not hear of it
        self.world.add_guest('alpha', guest, name='precious', on=False, disks=(self.world.disk(guest, '/instances'),))
        view = self.cloud.wait(self.api.instance_create('alpha', {'uuid': guest, 'name': 'web'}), 'failed')
        self.assertIn('alpha has another guest', view['error'])
        self.assertEqual(({'alpha': GuestState.OFF}, 1), (self.world.where(guest), len(self.world.files(guest))))

    def test_a_guest_that_does_not_listen_is_switched_off(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.set_deaf(guest)
        self.cloud.wait(self.api.instance_stop('web', timeout=1), 'completed')
        self.cloud.assert_clean(guest, 'alpha', 'stopped')

    def test_nothing_else_while_a_lock_names_it(self):
        """Given a guest that is being migrated, when anything is asked of it, then that comes first, whatever else would be in the way."""
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'post_live_migration_at_destination', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait(moving, 'finishing')
        for ask in (self.api.instance_start, self.api.instance_stop, self.api.instance_delete,
                    lambda name: self.api.live_migrate(name, 'beta'), lambda name: self.api.live_migrate(name, 'nowhere')):
            self.assertIn(moving['id'], str(self.assertRaises(exceptions.AlreadyMigrating, ask, 'web')))
        self.world.release()
        self.cloud.wait(moving, 'completed')
        self.assertEqual([], self.world.history(guest, 'start_instance', 'beta'))

    def test_found_guests_need_no_registration(self):
        guest = self.world.add_guest('alpha', name='old', disks=())
        self.wait_for(lambda: self.api.instances({'host': 'alpha'}), 'the guest to be found')
        self.assertFalse(self.api.instance_show('old')['managed'])
        self.cloud.migrate('old', 'beta')
        self.cloud.assert_clean(guest, 'beta')

    def test_the_list_by_pages(self):
        guests = [self.cloud.create(f'web-{n}', 'alpha', disks=0) for n in range(3)]
        self.assertEqual(guests, [i['uuid'] for i in self.api.instances()])
        self.assertEqual(guests[1:2], [i['uuid'] for i in self.api.instances(limit=1, marker=guests[0])])
        self.assertEqual([], self.api.instances({'state': 'paused'}))
        self.assertEqual(3, len(self.api.instances({'state': 'running', 'host': 'alpha'})))

    def test_the_timeline_of_a_start(self):
        self.cloud.create('web', 'alpha', start=False)
        view = self.cloud.wait(self.api.instance_start('web'), 'completed')
        self.assertEqual(['requested', 'end'], [e['what'] for e in view['events']], timeline(view))


def at_once(number, call):
    """Make `number` calls in as many threads at the same moment. Returns what each returned, or the MigratorError that it raised."""
    barrier = threading.Barrier(number)

    def one(index):
        barrier.wait(10)
        try:
            return call(index)
        except exceptions.MigratorError as error:
            return error
    return [handle.wait(20) for handle in [concurrency.spawn(one, index) for index in range(number)]]
