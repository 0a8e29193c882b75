"""The rows of volumes on SQLite, MariaDB and PostgreSQL alike: the life of a volume on simulated arrays, and two that ask at once."""
import threading

import testscenarios

from migrator import concurrency, exceptions
from tests import base, services
from tests.simulated import Cloud

MIB = 1 << 20
ARRAYS = {'alpha': {'gold': {'types': ['premium']}}, 'beta': {'silver': {'types': ['premium']}}}


class VolumeRowsTest(testscenarios.WithScenarios, base.TestCase):

    timeout = 240
    scenarios = [(kind, {'kind': kind}) for kind in ('sqlite', 'mysql', 'postgresql')]

    def setUp(self):
        super().setUp()
        url = self.useFixture(services.Database(self.kind)).url
        self.cloud = self.useFixture(Cloud(('alpha', 'beta'), arrays=ARRAYS, database=url))
        self.cloud.wait_arrays(*ARRAYS)
        self.api = self.cloud.api

    def done(self, work):
        """Wait until it is completed."""
        return self.cloud.wait(work, 'completed')

    def shown(self):
        """What a volume is, as its list and its view say alike."""
        view = self.api.volume_show('data')
        self.assertEqual('completed' if view['migration_status'] == 'success' else None, view.pop('migration').get('status'))
        self.assertEqual([view], self.api.volumes({'status': view['status'], 'type': 'premium', 'backend': view['pool'].partition('#')[0]}))
        return view['status'], view['migration_status'], view['size'] // MIB, len(view['attachments'])

    def test_the_life_of_a_volume(self):
        """Given a volume that is made, made larger, attached, detached, migrated and deleted, then each is seen in list and view."""
        self.cloud.create('web', 'beta')
        self.done(self.api.volume_create('data', 4 * MIB, 'alpha@gold', type='premium'))
        self.assertEqual(('available', 'none', 4, 0), self.shown())
        self.done(self.api.volume_extend('data', 8 * MIB))
        self.assertEqual(('available', 'none', 8, 0), self.shown())
        self.done(self.api.volume_attach('data', 'web'))
        self.assertEqual(('in-use', 'none', 8, 1), self.shown())
        self.done(self.api.volume_detach('data', 'web'))
        self.done(self.api.volume_migrate('data', 'beta@silver'))
        self.assertEqual(('available', 'success', 8, 0), self.shown())
        self.assertEqual([0, 1], [backend['volumes'] for backend in self.api.backends()])
        self.done(self.api.volume_delete('data'))
        self.assertEqual([], self.api.volumes())
        self.assertEqual({}, self.cloud.locks())

    def test_of_several_that_ask_at_once_one_wins(self):
        """Given four requests for one volume at once, then one begins, and the others are told that somebody is at it."""
        self.done(self.api.volume_create('data', 4 * MIB, 'alpha@gold', type='premium'))
        for method in ('extend', 'migrate_volume'):         # whichever wins is still at it when the last one comes
            self.cloud.volumes.world.inject('alpha@gold', method, 'hang', -1)
        barrier = threading.Barrier(4)

        def ask(index):
            barrier.wait(30)
            try:
                return self.api.volume_migrate('data', 'beta@silver') if index % 2 else self.api.volume_extend('data', 8 * MIB)
            except exceptions.Conflict as error:
                return error
        answers = [handle.wait(60) for handle in [concurrency.spawn(ask, index) for index in range(4)]]
        won = [answer for answer in answers if isinstance(answer, dict)]
        self.assertEqual(1, len(won), answers)
        self.cloud.volumes.world.release()
        self.done(won[0])
        for answer in answers:
            self.assertIsInstance(answer, (dict, exceptions.ResourceLocked))
