"""Volumes as their users have them, on simulated arrays and hosts: made, attached, detached, grown, deleted; and what is refused, with
nothing changed."""
import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db import ledger, tables
from migrator.conductor.db.database import now_ms
from tests import base
from tests.simulated import Cloud, wait_for

MIB = 1 << 20
ARRAYS = {'alpha': {'gold': {'types': ['premium']}, 'bronze': {'types': ['cheap'], 'capacity_mib': 256}},
          'beta': {'silver': {'types': ['premium', 'plain']}}}


class VolumeCase(base.TestCase):

    arrays = ARRAYS

    def setUp(self):
        super().setUp()
        self.cloud = self.useFixture(Cloud(('alpha', 'beta'), arrays=self.arrays))
        self.cloud.wait_arrays(*self.arrays)
        self.api, self.world = self.cloud.api, self.cloud.volumes.world

    def make(self, name='data', size=4 * MIB, pool='alpha@gold#fast', **more):
        """A volume that is there. Returns its view."""
        self.cloud.wait(self.api.volume_create(name, size, pool, **more), 'completed')
        return self.api.volume_show(name)

    def luns(self, name='alpha@gold'):
        """Names of the LUNs that an array has."""
        host, _, backend = name.partition('@')
        driver = self.cloud.volumes.agents[host].backends.get(backend).driver()
        return {(lun.pool, lun.name): lun for lun in driver.list()}

    def refused(self, error, words, call, *args, **kwargs):
        """Given a request, then it is refused by name and in words, and nothing is changed."""
        before = self.api.volumes(), {name: set(self.luns(name)) for name in ('alpha@gold', 'alpha@bronze', 'beta@silver')}, self.api.list()
        said = self.assertRaises(error, call, *args, **kwargs)
        self.assertIn(words, str(said))
        after = self.api.volumes(), {name: set(self.luns(name)) for name in ('alpha@gold', 'alpha@bronze', 'beta@silver')}, self.api.list()
        self.assertEqual(before, after)


class LifeTest(VolumeCase):

    def test_made_where_it_was_asked_for_and_deleted(self):
        """Given a volume that is made in a pool, then its LUN is there under its id, and when it is deleted both are gone."""
        volume = self.make()
        self.assertEqual(('available', 'none', 'alpha@gold#fast', 4 * MIB), tuple(
            volume[name] for name in ('status', 'migration_status', 'pool', 'size')))
        lun = self.luns()['fast', f'volume-{volume["id"]}']
        self.assertEqual((4 * MIB, volume['locator']), (lun.size, lun.locator))
        self.cloud.wait(self.api.volume_delete('data'), 'completed')
        self.assertEqual({}, self.luns())
        self.assertRaises(exceptions.VolumeNotFound, self.api.volume_show, 'data')
        self.assertEqual({}, self.cloud.locks())

    def test_made_where_its_type_is_and_there_is_most_room(self):
        self.assertEqual('alpha@bronze', self.make('a', pool='', type='cheap')['pool'].partition('#')[0])
        self.assertIn(self.make('b', pool='', type='premium')['pool'].partition('#')[0], ('alpha@gold', 'beta@silver'))
        self.assertEqual('beta@silver', self.make('c', pool='beta@silver')['pool'].partition('#')[0])

    def test_the_same_request_makes_one(self):
        first = self.api.volume_create('data', MIB, 'alpha@gold#fast', request_id='r-1')
        self.assertEqual(first['id'], self.api.volume_create('data', MIB, 'alpha@gold#fast', request_id='r-1')['id'])
        self.assertRaises(exceptions.InvalidRequest, self.api.volume_create, 'data', 2 * MIB, 'alpha@gold#fast', request_id='r-1')
        self.cloud.wait(first, 'completed')
        self.assertEqual(1, len(self.luns()))

    def test_grown(self):
        self.make()
        self.cloud.wait(self.api.volume_extend('data', 8 * MIB), 'completed')
        volume = self.api.volume_show('data')
        self.assertEqual((8 * MIB, 8 * MIB, 'available'), (volume['size'], self.luns()['fast', volume['lun']].size, volume['status']))

    def test_one_that_cannot_be_made_says_why_and_can_be_deleted(self):
        """Given an array that fails, when a volume is made there, then it is in error with the array's words, nothing is left at the array,
        and it can be deleted."""
        self.world.inject('alpha@gold', 'create', 'fail')
        view = self.cloud.wait(self.api.volume_create('data', MIB, 'alpha@gold#fast'), 'failed')
        volume = self.api.volume_show('data')
        self.assertEqual('error', volume['status'])
        self.assertIn('create_volume: ', volume['error'])
        self.assertEqual(({}, view['volume_id']), (self.luns(), volume['id']))
        self.refused(exceptions.VolumeNotUsable, 'is error', self.api.volume_extend, 'data', 2 * MIB)
        self.cloud.wait(self.api.volume_delete('data'), 'completed')
        self.assertEqual([], self.api.volumes())

    def test_at_work_it_says_so_and_is_left_alone(self):
        """Given a volume that is being made larger, then it says so, and nothing else is begun with it."""
        self.make()
        self.world.inject('alpha@gold', 'extend', 'hang')
        work = self.api.volume_extend('data', 8 * MIB)
        self.assertEqual('extending', self.api.volume_show('data')['status'])
        self.assertEqual(['data'], [v['name'] for v in self.api.volumes({'status': 'extending'})])
        for call, args in ((self.api.volume_delete, ()), (self.api.volume_extend, (16 * MIB,)), (self.api.volume_attach, (self.guest(),))):
            error = self.assertRaises(exceptions.ResourceLocked, call, 'data', *args)
            self.assertIn(work['id'], str(error))
        self.world.release()
        self.cloud.wait(work, 'completed')

    def guest(self):
        """A guest on beta."""
        return self.cloud.create('web', 'beta')

    def test_an_agent_that_dies_while_it_makes_one(self):
        """Given an agent that is killed while it makes a volume, when it is back, then the volume is made, once."""
        self.world.inject('alpha@gold', 'create', 'hang')
        work = self.api.volume_create('data', MIB, 'alpha@gold#fast')
        wait_for(lambda: self.cloud.volumes.agents['alpha'].operations.running('create_volume'), 'begun')
        self.cloud.volumes.restart('alpha')
        self.world.release()
        self.cloud.wait(work, 'completed')
        self.assertEqual(1, len(self.luns()))


class AttachTest(VolumeCase):

    def setUp(self):
        super().setUp()
        self.guest = self.cloud.create('web', 'beta')
        self.volume = self.make()

    def disks(self):
        """Disks of the guest that are volumes, as the conductors know them in the end."""
        return [d['serial'] for d in self.api.instance_show('web')['disks'] if d['kind'] == 'network']

    def test_attached_and_detached(self):
        """Given a volume and a guest of another host, when it is attached, then the guest has the disk by the volume's id and the array an
        export; when it is detached, neither is left."""
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        view = self.api.volume_show('data')
        self.assertEqual(('in-use', 'web', 'attached', 'beta'), (view['status'], *(
            view['attachments'][0][name] for name in ('instance_name', 'status', 'host'))))
        self.assertTrue(view['attachments'][0]['target'])
        wait_for(lambda: self.disks() == [self.volume['id']], 'the disk known')
        self.assertEqual([f'attachment-{view["attachments"][0]["id"]}'], [e.name for e in self.exports()])
        self.cloud.wait(self.api.volume_detach('data', 'web'), 'completed')
        view = self.api.volume_show('data')
        self.assertEqual(('available', []), (view['status'], view['attachments']))
        self.assertEqual((), self.exports())
        wait_for(lambda: not self.disks(), 'the disk gone')
        self.assertEqual({}, self.cloud.locks())

    def exports(self):
        """Exports of the volume's LUN."""
        return self.luns()['fast', self.volume['lun']].exports

    def test_what_is_attached_is_not_taken_away(self):
        self.cloud.wait(self.api.volume_attach('data', 'web', {'target': 'vdc'}), 'completed')
        self.assertEqual('vdc', self.api.volume_show('data')['attachments'][0]['target'])
        self.refused(exceptions.VolumeInUse, 'attached to web', self.api.volume_delete, 'data')
        self.refused(exceptions.VolumeInUse, 'attached to web', self.api.volume_extend, 'data', 8 * MIB)
        self.refused(exceptions.VolumeInUse, 'has volume data already', self.api.volume_attach, 'data', 'web')
        self.cloud.create('db', 'alpha')
        self.refused(exceptions.VolumeInUse, 'attached to web already', self.api.volume_attach, 'data', 'db')
        self.cloud.wait(self.api.instance_stop('web', timeout=0), 'completed')
        self.refused(exceptions.VolumeInUse, 'detach them first', self.api.instance_delete, 'web')

    def test_one_for_several(self):
        self.make('shared', multiattach=True)
        self.cloud.create('db', 'alpha')
        for name in ('web', 'db'):
            self.cloud.wait(self.api.volume_attach('shared', name, {'read_only': True}), 'completed')
        self.assertEqual({'web', 'db'}, {a['instance_name'] for a in self.api.volume_show('shared')['attachments']})
        self.cloud.wait(self.api.volume_detach('shared', 'db'), 'completed')
        self.assertEqual('in-use', self.api.volume_show('shared')['status'])

    def test_a_host_that_does_not_take_it(self):
        """Given a hypervisor that refuses the disk, when the volume is attached, then that fails in words, and no export is left."""
        self.cloud.world.inject('beta', 'attach_volume', 'fail')
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'failed')
        view = self.api.volume_show('data')
        self.assertEqual(('available', []), (view['status'], view['attachments']))
        self.assertIn('attach_volume: ', view['error'])
        self.assertEqual(((), []), (self.exports(), self.disks()))
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        self.assertEqual('', self.api.volume_show('data')['error'])

    def test_a_guest_that_its_host_does_not_know_any_more(self):
        """Given a guest that was undefined by hand, then it is not forgotten while it has a volume, and the volume can be detached."""
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        self.cloud.world.undefine('beta', self.guest)
        self.assertRaises(exceptions.VolumeInUse, self.api.instance_forget, 'web')
        self.cloud.wait(self.api.volume_detach('data', 'web'), 'completed')
        self.assertEqual(('available', ()), (self.api.volume_show('data')['status'], self.exports()))
        # What is known of a guest must not change while the hosts are asked for it.
        wait_for(lambda: self.api.instance_show('web')['state'] == 'unknown', 'a heartbeat without the guest')
        self.api.instance_forget('web')

    def test_a_guest_whose_host_is_off(self):
        """Given a guest whose host is silent, when somebody attests that it is off, then the volume is free for another."""
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        self.assertIn('is not off', str(self.assertRaises(exceptions.HostUp, self.api.volume_detach, 'data', 'web', {'assert_dead': True})))
        self.cloud.kill_agent('beta')
        self.cloud.wait_down('beta')
        self.assertRaises(exceptions.HostUp, self.api.volume_detach, 'data', 'web', {'assert_dead': True})     # its volume agent lives
        self.cloud.volumes.kill('beta')
        wait_for(lambda: self.api.backend_show('beta@silver')['state'] == 'down', 'the volume agent down')
        self.assertRaises(exceptions.HostDown, self.api.volume_detach, 'data', 'web')
        work = self.cloud.wait(self.api.volume_detach('data', 'web', {'assert_dead': True}), 'completed')
        self.assertEqual(('volume_cut_off', 'tester'), (work['kind'], work['events'][0]['user']))
        self.assertEqual(('available', ()), (self.api.volume_show('data')['status'], self.exports()))
        self.cloud.create('db', 'alpha')
        self.cloud.wait(self.api.volume_attach('data', 'db'), 'completed')

    def test_an_agent_that_is_too_old(self):
        old = self.cloud.agents['beta'].heartbeat
        old._who['rpc_version'] = '1.0'
        wait_for(lambda: self.api.host_show('beta')['rpc_version'] == '1.0', 'the old version known')
        self.refused(exceptions.NotPossible, 'too old for volumes', self.api.volume_attach, 'data', 'web')

    def test_not_attached_cannot_be_detached(self):
        self.refused(exceptions.NotPossible, 'is not attached to instance web', self.api.volume_detach, 'data', 'web')


class RefusalTest(VolumeCase):

    def test_at_creation(self):
        for error, words, arguments in (
                (exceptions.InvalidRequest, 'there is no volume type gold', {'type': 'gold'}),
                (exceptions.BackendNotFound, 'alpha@iron', {'pool': 'alpha@iron'}),
                (exceptions.BackendNotFound, 'alpha@gold#huge', {'pool': 'alpha@gold#huge'}),
                (exceptions.MigrationRefused, 'does not serve volumes of type plain', {'pool': 'alpha@gold#fast', 'type': 'plain'}),
                (exceptions.NoRoom, 'free, the volume needs 900.0 GiB', {'pool': 'alpha@gold#fast', 'size': 900 << 30}),
                (exceptions.NotPossible, 'no pool can take the volume', {'size': 900 << 30}),
                (exceptions.InvalidRequest, 'whole sectors', {'size': 1000}),
                (exceptions.InvalidRequest, 'is not the name of a pool', {'pool': 'gold'}),
                (exceptions.InvalidRequest, 'cannot be the name', {'name': 'a/b'})):
            self.refused(error, words, self.api.volume_create, **{'name': 'data', 'size': MIB, **arguments})

    def test_a_name_is_for_one(self):
        self.make()
        self.refused(exceptions.VolumeExists, 'of the name data', self.api.volume_create, 'data', MIB)

    def test_an_array_that_does_not_answer(self):
        self.make()
        self.world.kill('alpha@gold')
        wait_for(lambda: self.api.backend_show('alpha@gold')['state'] == 'offline', 'offline')
        for call, args in ((self.api.volume_create, ('more', MIB, 'alpha@gold')), (self.api.volume_delete, ('data',)),
                           (self.api.volume_extend, ('data', 8 * MIB))):
            self.assertIn('alpha@gold is offline', str(self.assertRaises(exceptions.BackendOffline, call, *args)))
        self.assertEqual('available', self.api.volume_show('data')['status'])

    def test_sizes(self):
        self.make()
        self.refused(exceptions.InvalidRequest, 'only be made larger', self.api.volume_extend, 'data', 4 * MIB)
        self.refused(exceptions.NoRoom, 'are needed', self.api.volume_extend, 'data', 900 << 30)

    def test_a_disabled_host_gets_no_new_volumes(self):
        """Given a host that was disabled, then none of its agents is given new work, and what is there may leave."""
        self.make('old', pool='beta@silver')
        self.api.host_disable('beta', 'to be sold')
        self.refused(exceptions.HostDisabled, 'to be sold', self.api.volume_create, 'data', MIB, 'beta@silver')
        self.assertFalse(self.api.backend_show('beta@silver')['enabled'])
        self.cloud.wait(self.api.volume_migrate('old', 'alpha@gold'), 'completed')
        self.api.host_enable('beta')
        self.make('data', pool='beta@silver')

    def test_two_agents_of_one_name_get_no_work(self):
        """Given two volume agents that call themselves by one host's name, then nothing is begun at its arrays, and a backend says why."""
        self.make()
        rival = {'rival_process_id': 'p-x', 'rival_since': now_ms() - 70_000, 'rival_seen': now_ms()}
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.update(tables.service).where(tables.service.c.host == 'alpha', tables.service.c.kind == 'volume').values(rival))
        words = 'two agents call themselves alpha'
        for call, args in ((self.api.volume_create, ('new', MIB, 'alpha@gold')), (self.api.volume_delete, ('data',)),
                           (self.api.volume_extend, ('data', 8 * MIB)), (self.api.volume_migrate, ('data', 'beta@silver'))):
            self.refused(exceptions.HostDoubled, words, call, *args)
        self.assertIn(words, self.api.backend_show('alpha@gold')['why'])
        self.assertEqual('', self.api.backend_show('beta@silver')['why'])

    def test_what_there_is_not(self):
        self.make()
        self.refused(exceptions.BackendNotFound, 'alpha@iron', self.api.volumes, {'backend': 'alpha@iron'})
        self.refused(exceptions.InvalidRequest, 'no volume type silk', self.api.volumes, {'type': 'silk'})
        self.assertEqual([], self.api.volumes({'type': 'plain'}))
        self.refused(exceptions.VolumeNotFound, 'nothing', self.api.volume_delete, 'nothing')
        self.refused(exceptions.InstanceNotFound, 'nobody', self.api.volume_attach, 'data', 'nobody')
        self.refused(exceptions.InvalidRequest, 'status must be one of', self.api.volumes, {'status': 'lost'})


class MigrateTest(VolumeCase):

    def test_moved_to_another_array_as_it_was_asked_for(self):
        """Given an available volume, when its migration is asked for, then it is at the other array by the same id."""
        volume = self.make()
        view = self.api.volume_migrate('data', 'beta@silver#slow')
        self.assertEqual(('volume_migration', volume['id']), (view['kind'], view['volume_id']))
        self.cloud.wait(view, 'completed')
        moved = self.api.volume_show('data')
        self.assertEqual((volume['id'], 'beta@silver#slow', 'success', 'available'), tuple(
            moved[name] for name in ('id', 'pool', 'migration_status', 'status')))
        self.assertEqual(({}, [('slow', moved['lun'])]), (self.luns(), list(self.luns('beta@silver'))))
        self.assertEqual({}, self.cloud.locks())

    def test_another_type_is_had_by_a_copy(self):
        self.make(type='premium')
        view = self.cloud.wait(self.api.volume_migrate('data', 'alpha@bronze', options={'new_type': 'cheap'}), 'completed')
        self.assertIn('copy_volume', {event['step'] for event in view['events']})
        volume = self.api.volume_show('data')
        self.assertEqual(('cheap', 'alpha@bronze'), (volume['type'], volume['pool'].partition('#')[0]))

    def test_what_is_refused(self):
        self.make(type='premium')
        self.make('shared', multiattach=True)
        for error, words, name, where, options in (
                (exceptions.SameBackend, 'at alpha@gold#fast already; for another pool', 'data', 'alpha@gold#fast', {}),
                (exceptions.BackendNotFound, 'beta@iron', 'data', 'beta@iron', {}),
                (exceptions.MigrationRefused, 'does not serve volumes of type premium', 'data', 'alpha@bronze#fast', {}),
                (exceptions.InvalidRequest, 'no volume type silk', 'data', 'beta@silver', {'new_type': 'silk'}),
                (exceptions.MigrationRefused, 'several instances', 'shared', 'beta@silver', {}),
                (exceptions.InvalidRequest, 'sampled or full', 'data', 'beta@silver', {'verification': 'none'}),
                (exceptions.InvalidRequest, 'nothing else', 'data', 'beta@silver', {'fast': True})):
            self.refused(error, words, self.api.volume_migrate, name, where, options=options)
        self.cloud.create('web', 'beta')
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        self.refused(exceptions.VolumeInUse, 'attached to web', self.api.volume_migrate, 'data', 'beta@silver')

    def test_a_dry_run_tells_the_ways_and_changes_nothing(self):
        self.make()
        before = self.api.list()
        found = self.api.volume_migrate('data', 'beta@silver#slow', options={'dry_run': True})
        self.assertEqual((True, 'alpha@gold#fast', 'beta@silver#slow'), tuple(found[name] for name in ('possible', 'from', 'to')))
        self.assertEqual(['source', 'target', 'host'], [way.removeprefix('the ').split()[0] for way in found['ways']])
        forced = self.api.volume_migrate('data', 'beta@silver', options={'dry_run': True, 'force_host_copy': True})
        self.assertEqual(['host copy: a host copy was asked for'], forced['ways'])
        self.assertEqual(before, self.api.list())

    def test_show_tells_which_way_was_taken_and_why(self):
        """Given arrays that take volumes over, then the volume and the migration tell of that way; and if a copy was asked for, of that."""
        self.make()
        taken = self.cloud.wait(self.api.volume_migrate('data', 'beta@silver'), 'completed')
        self.assertEqual(('target driver, data follows', 'the source array does not move it by itself'), (taken['way'], taken['why']))
        copied = self.cloud.wait(self.api.volume_migrate('data', 'alpha@gold', options={'force_host_copy': True}), 'completed')
        self.assertEqual(('host copy', 'a host copy was asked for'), (copied['way'], copied['why']))
        last = self.api.volume_show('data')['migration']
        self.assertEqual((copied['id'], 'completed', 'host copy', 'beta@silver', 'alpha@gold'), (
            last['id'], last['status'], last['way'], last['from'].partition('#')[0], last['to'].partition('#')[0]))
        listed = self.api.list({'volume': 'data', 'kind': ['volume_migration', 'live_migration']})
        self.assertEqual([copied['id'], taken['id']], [view['id'] for view in listed])
        self.assertRaises(exceptions.VolumeNotFound, self.api.list, {'volume': 'nothing'})
        self.assertRaises(exceptions.InvalidRequest, self.api.list, {'kind': ['volume_migration', 'nothing']})

    def test_the_rate_of_a_copy_is_changed_while_it_waits_and_while_it_runs(self):
        """Given a copy whose destination is just being made, when its limit is changed, then the copy has that limit."""
        self.make()
        self.world.inject('beta@silver', 'create', 'hang')
        work = self.api.volume_migrate('data', 'beta@silver', options={'force_host_copy': True, 'bandwidth': MIB})
        wait_for(lambda: self.api.show(work['id'])['step'] == 'create_target_volume', 'the copy being made')
        view = self.api.set_bandwidth(work['id'], 7 * MIB)
        self.assertIn('limit of the copy: 7.0 MiB a second', [e['reason'] for e in view['events'] if e['what'] == 'set_bandwidth'])
        self.world.release()
        self.cloud.wait(work, 'completed')
        self.assertEqual(7 * MIB, self.plan(work['id'])['bandwidth'])
        self.assertRaises(exceptions.TooLate, self.api.set_bandwidth, work['id'], 0)
        other = self.api.volume_extend('data', 8 * MIB)
        self.assertRaises(exceptions.NotPossible, self.api.set_bandwidth, other['id'], 0)
        self.assertIn('only a live migration', str(self.assertRaises(exceptions.NotPossible, self.api.force_complete, other['id'])))

    def plan(self, migration):
        """What its steps were given."""
        return self.cloud.database.run(lambda tx: ledger.load(tx, migration)).row.plan


class WindowTest(VolumeCase):
    """While the target array has taken the volume over and fetches its data."""

    def setUp(self):
        super().setUp()
        self.make()
        self.cloud.create('web', 'beta')
        self.world.inject('beta@silver', 'complete_migration_target', 'hang')

    def moving(self, **options):
        """A migration whose data does not end to arrive before `release`."""
        work = self.api.volume_migrate('data', 'beta@silver', options=options)
        wait_for(lambda: self.api.show(work['id'])['step'] == 'complete_migration_target', 'the take-over')
        return work

    def test_attached_and_detached_and_nothing_else(self):
        """Given a volume that is migrating_attachable, then it is attached and detached there, and refused for other work."""
        work = self.moving()
        self.assertEqual(('migrating_attachable', 'beta@silver'), (
            self.api.volume_show('data')['migration_status'], self.api.volume_show('data')['pool'].partition('#')[0]))
        for call, args in ((self.api.volume_delete, ()), (self.api.volume_extend, (8 * MIB,)), (self.api.volume_migrate, ('alpha@gold',))):
            self.assertIn(work['id'], str(self.assertRaises(exceptions.AlreadyMigrating, call, 'data', *args)))
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        self.assertEqual(('in-use', 'migrating_attachable'), tuple(self.api.volume_show('data')[n] for n in ('status', 'migration_status')))
        self.cloud.wait(self.api.volume_detach('data', 'web'), 'completed')
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        self.world.release()
        self.cloud.wait(work, 'completed')
        self.assertEqual(('in-use', 'success'), tuple(self.api.volume_show('data')[name] for name in ('status', 'migration_status')))
        self.assertEqual({}, self.luns())
        self.assertEqual([], self.api.audit()['findings'])

    def test_locked_nobody_has_it_before_the_end(self):
        work = self.moving(lock_volume=True)
        self.assertEqual('migrating', self.api.volume_show('data')['migration_status'])
        self.assertIn(work['id'], str(self.assertRaises(exceptions.AlreadyMigrating, self.api.volume_attach, 'data', 'web')))
        self.world.release()
        self.cloud.wait(work, 'completed')
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')

    def test_an_attachment_that_is_under_way_when_the_migration_ends(self):
        """Given a volume that is being attached, when its migration ends meanwhile, then nothing else is begun before it is attached."""
        work = self.moving()
        self.cloud.world.inject('beta', 'attach_volume', 'hang')
        attaching = self.api.volume_attach('data', 'web')
        wait_for(lambda: self.api.show(attaching['id'])['step'] == 'attach_volume', 'the disk being given')
        self.world.release()
        self.cloud.wait(work, 'completed')
        for call, args in ((self.api.volume_delete, ()), (self.api.volume_extend, (8 * MIB,)), (self.api.volume_migrate, ('alpha@gold',))):
            self.assertIn(attaching['id'], str(self.assertRaises(exceptions.ResourceLocked, call, 'data', *args)))
        self.cloud.world.release()
        self.cloud.wait(attaching, 'completed')
        self.assertEqual('in-use', self.api.volume_show('data')['status'])
