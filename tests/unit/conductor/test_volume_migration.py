"""The migration of a volume between simulated arrays, from the request to the end: each way of the seed, and what goes wrong."""
import os
import pathlib

import testscenarios

from migrator import exceptions
from migrator.conductor.db import tables, volumes
from migrator.rpc.context import MigratorContext
from migrator.rpc.volume import VolumeAPI
from tests import base
from tests.simulated import Cloud, wait_for

SIZE = 16 << 20
#: A pattern, one byte for each block of 4 KiB.
DATA = bytes(range(1, 251)) * 16


class VolumeCase(base.TestCase):
    """A volume with data at one@a, and an array at another agent, or at the same one, where it is to go."""

    #: Options of the source's and of the target's array, and of the daemons. host: the target's.
    source, target, options = {}, {}, {}
    host = 'two'

    def setUp(self):
        super().setUp()
        arrays = {'one': {'a': self.source}}
        arrays.setdefault(self.host, {})['b'] = self.target
        self.cloud = self.useFixture(Cloud(hosts=('alpha',), arrays=arrays, **self.options))
        self.arrays, self.api = self.cloud.volumes.world, self.cloud.api
        self.agents, self.context = VolumeAPI(self.cloud.conf('tester'), self.cloud.transport), MigratorContext(overwrite=False)
        self.cloud.wait(self.api.volume_create('data', SIZE, 'one@a#fast'), 'completed')
        self.volume_id = self.row().id
        self.arrays.put('one@a', 'fast', self.row().lun, DATA)

    def row(self):
        """The volume as the catalogue has it."""
        return self.cloud.database.run(lambda tx: volumes.get(tx, 'data'))

    def migrate(self, **options):
        """Ask for the migration; returns its id."""
        return self.api.volume_migrate('data', f'{self.host}@b#slow', options=options)['id']

    def ended(self, migration, status='completed'):
        """Wait for the end of it; returns its view."""
        return self.cloud.wait(migration, status)

    def steps(self, view):
        """The operations that it went through, in order."""
        return list(dict.fromkeys(event['step'] for event in view['events'] if event['what'] == 'start'))

    def assert_moved(self, migration, status='success'):
        """The volume is at the target, alone, with its data, and nothing is held, exported or owed."""
        row = self.row()
        lun = f'volume-{self.volume_id}-{migration[:8]}'
        self.assertEqual((self.host, 'b', 'slow', lun, status), (row.host, row.backend, row.pool, row.lun, row.migration_status))
        self.assertEqual({'lun': lun}, row.locator)
        self.assertEqual([(f'{self.host}@b', 'slow', lun, migration)], self.arrays.luns())
        self.assertEqual(DATA, self.arrays.content(f'{self.host}@b', 'slow', lun)[:len(DATA)])
        self.assert_nothing_held()

    def assert_where_it_was(self, status='error'):
        """The volume is at the source, alone, with its data, and nothing is held, exported or owed."""
        row = self.row()
        self.assertEqual(('one', 'a', 'fast', f'volume-{self.volume_id}'), (row.host, row.backend, row.pool, row.lun))
        self.assertEqual(status, row.migration_status)
        self.assertEqual(['one@a'], [array for array, *_rest in self.arrays.luns()])
        self.assertEqual(DATA, self.arrays.content('one@a', 'fast', row.lun)[:len(DATA)])
        self.assert_nothing_held()

    def assert_nothing_held(self):
        """No locks, exports, places, debts."""
        self.assertEqual(({}, [], []), (self.cloud.locks(), self.arrays.exports(), self.cloud.debts()))
        with self.cloud.database.engine.connect() as db:
            self.assertEqual({0}, {places for (places,) in db.execute(tables.service.select().with_only_columns(tables.service.c.places))})


class WaysTest(testscenarios.WithScenarios, VolumeCase):
    """Which way is taken follows from what the drivers say and what was asked for (seed 001, steps 1 to 5)."""

    COPY = ['create_target_volume', 'copy_volume', 'verify_volume', 'delete_source_volume']
    ways = [
        ('the source moves it', {'source': {'moves': True}, 'expected': ['migrate_volume', 'delete_source_volume']}),
        ('the target takes it over at once', {'target': {'take_over': 'sync'}, 'expected': [
            'migrate_volume', 'export_volume', 'migrate_volume_target', 'delete_source_volume']}),
        ('the target takes it over while data is on its way', {'target': {'take_over': 'async'}, 'expected': [
            'migrate_volume', 'export_volume', 'migrate_volume_target', 'complete_migration_target', 'delete_source_volume']}),
        ('both decline', {'target': {'take_over': 'no'}, 'expected': ['migrate_volume', 'export_volume', 'migrate_volume_target', *COPY]}),
        ('a host copy is asked for', {
            'source': {'moves': True}, 'asked': {'force_host_copy': True}, 'expected': ['export_volume', *COPY]}),
        ('another type is asked for', {
            'target': {'types': ['gold']}, 'asked': {'new_type': 'gold'}, 'expected': ['export_volume', *COPY]}),
    ]
    scenarios = [(f'{name}, {where}', {**way, 'host': host}) for name, way in ways
                 for where, host in (('by two agents', 'two'), ('by one agent', 'one'))]
    asked = {}

    def test_it_goes_this_way(self):
        migration = self.migrate(**self.asked)
        view = self.ended(migration)
        self.assertEqual(self.expected, self.steps(view))
        self.assertEqual(('', True), (view['error'], view['no_return']))
        self.assert_moved(migration)
        self.assertEqual(self.asked.get('new_type', ''), self.row().type)
        called = {call.method for call in self.arrays.history() if call.method.startswith('migrate_volume')}
        self.assertEqual({name for name in self.expected if name.startswith('migrate_volume')}, called)


class AttachableTest(VolumeCase):

    target = {'take_over': 'async', 'migration_seconds': 1.5}

    def test_it_can_be_attached_from_the_commit_on(self):
        """Given a take-over whose data is on its way, then host, LUN and status are there together, and attaching is free."""
        migration = self.migrate()
        wait_for(lambda: self.row().migration_status == 'migrating_attachable', 'the commit')
        row = self.row()
        self.assertEqual(('two', 'b', 'slow', f'volume-{self.volume_id}-{migration[:8]}'), (row.host, row.backend, row.pool, row.lun))
        self.assertEqual(({volumes.resource(self.volume_id): migration}, 'attachable'), (self.cloud.locks(), row.lock_mode))
        self.ended(migration)
        self.assert_moved(migration)

    def test_lock_volume(self):
        """Given a volume that is to stay locked, then nobody attaches it before the end."""
        migration = self.migrate(lock_volume=True)
        wait_for(lambda: self.row().host == 'two', 'the commit')
        self.assertEqual(('migrating', dict.fromkeys(volumes.locks(self.volume_id), migration)),
                         (self.row().migration_status, self.cloud.locks()))
        self.ended(migration)
        self.assert_moved(migration)

    def test_an_abort_is_too_late(self):
        migration = self.migrate()
        wait_for(lambda: self.row().host == 'two', 'the commit')
        self.assertIn('point of no return', str(self.assertRaises(exceptions.TooLate, self.api.abort, migration)))
        self.ended(migration)
        self.assert_moved(migration)

    def test_a_completion_that_fails_calls_an_operator_and_is_tried_again(self):
        """Given a take-over that cannot be completed, then both LUNs stay, the target in charge, until it can."""
        self.arrays.inject('two@b', 'complete_migration_target', 'fail', -1)
        migration = self.migrate()
        self.ended(migration, 'needs_operator')
        self.assertEqual(('two', 'migrating_attachable'), (self.row().host, self.row().migration_status))
        self.assertEqual(['one@a', 'two@b'], [array for array, *_rest in self.arrays.luns()])
        self.arrays.release()
        self.api.recover(migration)
        self.ended(migration)
        self.assert_moved(migration)

    def test_the_target_agent_is_killed_while_data_is_on_its_way(self):
        migration = self.migrate()
        wait_for(lambda: self.row().host == 'two', 'the commit')
        self.cloud.volumes.restart('two')
        self.ended(migration)
        self.assert_moved(migration)


class RaisesTest(testscenarios.WithScenarios, VolumeCase):
    """A driver that raises has not declined: no other way is tried, and what is true is asked."""

    scenarios = [(f'{method}, {action}', {'method': method, 'action': action, 'source': {'moves': method == 'migrate_volume'}})
                 for method in ('migrate_volume', 'migrate_volume_target') for action in ('fail', 'fail-after')]
    target = {'take_over': 'sync'}

    def test_what_follows(self):
        self.arrays.inject('one@a' if self.method == 'migrate_volume' else 'two@b', self.method, self.action)
        migration = self.migrate()
        if (self.method, self.action) == ('migrate_volume', 'fail-after'):      # the source has let go of it, and the target has it
            self.ended(migration)
            self.assert_moved(migration)
            return
        view = self.ended(migration, 'failed')
        self.assertIn('as was ordered', view['error'])
        self.assertIn('as was ordered', self.row().error)
        self.assertNotIn('create_target_volume', self.steps(view))
        self.assert_where_it_was()


class CopyTest(VolumeCase):

    target = {'take_over': 'no'}
    options = {'conductor__copy_attempts': 1}

    def test_an_abort_in_the_copy(self):
        migration = self.migrate(bandwidth=1 << 20)
        wait_for(lambda: self.api.show(migration)['step'] == 'copy_volume', 'the copy')
        self.api.abort(migration)
        view = self.ended(migration, 'cancelled')
        self.assertEqual('aborted on request', view['error'])
        self.assert_where_it_was('none')

    def test_the_copy_fails(self):
        self.arrays.inject('two@b', 'copy', 'fail')
        self.ended(self.migrate(), 'failed')
        self.assert_where_it_was()

    def test_the_target_agent_is_killed_in_the_copy(self):
        migration = self.migrate(bandwidth=SIZE)
        wait_for(lambda: self.agents.volume_progress(self.context, 'two', migration).done, 'some of the copy')
        self.cloud.volumes.restart('two')
        self.ended(migration)
        self.assert_moved(migration)

    def test_a_copy_that_comes_further_is_not_given_up(self):
        """Given conductors that give a copy up at its first idle interruption, when its agent is killed three times, each time after some
        more was copied, then it goes on behind that, to its end."""
        migration, before = self.migrate(bandwidth=SIZE // 2), 0
        for _ in range(3):
            wait_for(lambda: self.agents.volume_progress(self.context, 'two', migration).done > before, 'more of the copy')  # noqa: B023
            before = self.agents.volume_progress(self.context, 'two', migration).done
            self.cloud.volumes.restart('two')
        view = self.ended(migration)
        self.assertEqual(4, sum(event['step'] == 'copy_volume' and event['what'] == 'start' for event in view['events']), view['events'])
        self.assert_moved(migration)

    def test_only_what_is_kept_of_live_copies_stays(self):
        """Given an agent with old checkpoints, of a copy that nobody knows any more and of one whose migration has ended, when it is killed
        in another copy, and is back, then both go, and the copy goes on behind its own."""
        done = self.cloud.wait(self.api.volume_extend('data', SIZE + (1 << 20)), 'completed')['id']
        migration = self.migrate(bandwidth=SIZE // 2)
        wait_for(lambda: self.agents.volume_progress(self.context, 'two', migration).done, 'some of the copy')
        folder = pathlib.Path(self.cloud.volumes.agents['two'].copying._folder)
        for name in ('99999999-9999-4999-8999-999999999999.json', '99999999-9999-4999-8999-999999999999.json.lock', f'{done}.json'):
            (folder / f'copy-{name}').write_text('{}')
            os.utime(folder / f'copy-{name}', (1, 1))
        self.cloud.volumes.restart('two')
        wait_for(lambda: {path.name for path in folder.iterdir()} <= {f'copy-{migration}.json'}, 'the old checkpoints to be forgotten')
        self.ended(migration)
        self.assert_moved(migration)
        wait_for(lambda: not list(folder.iterdir()), 'the checkpoint to be forgotten')

    def test_a_copy_that_never_begins_is_given_up(self):
        """Given such conductors, when the agent is killed before anything was copied, then the migration is undone."""
        self.arrays.inject('two@b', 'copy', 'hang')
        migration = self.migrate()
        wait_for(lambda: self.cloud.volumes.agents['two'].operations.running('copy_volume'), 'the copy')
        self.cloud.volumes.restart('two')
        self.arrays.release()
        self.assertIn('the agent ended while it ran', self.ended(migration, 'failed')['error'])
        self.assert_where_it_was()

    def test_the_source_cannot_be_removed(self):
        """Given a source whose removal fails, then the migration is completed, and the source owes it."""
        self.arrays.inject('one@a', 'delete', 'fail', -1)
        migration = self.migrate()
        view = self.ended(migration)
        self.assertEqual(['delete_source_volume'], [debt['action'] for debt in view['debts']])
        self.assertEqual('two', self.row().host)
        self.arrays.release()
        wait_for(lambda: not self.cloud.debts(), 'the debt to be paid')
        self.assert_moved(migration)

    def test_what_only_the_array_knows(self):
        """Given a LUN that somebody uses behind the conductors' back, then the checks find it, and nothing is made anywhere."""
        self.cloud.volumes.agents['one'].backends.get('a').driver().export('fast', self.row().lun, 'somebody', True)
        before = self.arrays.history()
        view = self.ended(self.migrate(), 'failed')
        self.assertIn('the volume is in use at one@a#fast: it is exported as somebody', view['error'])
        self.assertEqual((before, 'error'), (self.arrays.history(), self.row().migration_status))
