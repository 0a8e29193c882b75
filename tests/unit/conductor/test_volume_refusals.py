"""What a volume cannot be asked for while an array does not answer or has no room: refused by name and in words, with nothing changed."""
from migrator import exceptions
from tests.simulated import wait_for
from tests.unit.conductor.test_volumes import MIB, VolumeCase


class NoRoomTest(VolumeCase):

    def test_a_migration_to_a_pool_that_is_too_small(self):
        """Given a volume of 300 MiB and a backend of 256 MiB, then it is not moved there, whether its pool was named or is to be chosen."""
        self.make(size=300 * MIB)
        for where, error in (('alpha@bronze#fast', exceptions.NoRoom), ('alpha@bronze', exceptions.NotPossible)):
            for options in ({}, {'force_host_copy': True}, {'dry_run': True}):
                self.refused(error, '256.0 MiB free, the volume needs 300.0 MiB', self.api.volume_migrate, 'data', where, options=options)
        shown = self.api.volume_show('data')
        self.assertEqual(('available', 'none', ''), (shown['status'], shown['migration_status'], shown['locked_by']))


class OfflineTest(VolumeCase):
    """Given a volume at an array, and a guest."""

    def setUp(self):
        super().setUp()
        self.make()
        self.cloud.create('web', 'beta')

    def lose(self, name):
        """Cut an array's power, and wait until that is known."""
        self.world.kill(name)
        wait_for(lambda: self.api.backend_show(name)['state'] == 'offline', 'the array offline')

    def refused_by(self, name, call, *args, **kwargs):
        """It is refused since this array is offline, and nothing is changed: no volume, attachment, LUN, lock or work."""
        before = self.seen()
        said = self.assertRaises(exceptions.BackendOffline, call, *args, **kwargs)
        self.assertIn(f'{name} is offline', str(said))
        self.assertEqual(before, self.seen())

    def seen(self):
        """All that a request might change."""
        return self.api.volumes(), self.api.list(), self.world.luns(), self.world.exports(), self.cloud.locks()

    def test_a_migration_from_an_array_that_does_not_answer(self):
        self.lose('alpha@gold')
        for options in ({}, {'force_host_copy': True}, {'dry_run': True}):
            self.refused_by('alpha@gold', self.api.volume_migrate, 'data', 'beta@silver#slow', options=options)

    def test_a_migration_to_an_array_that_does_not_answer(self):
        self.lose('beta@silver')
        for where in ('beta@silver', 'beta@silver#slow'):
            for options in ({}, {'force_host_copy': True}, {'dry_run': True}):
                self.refused_by('beta@silver', self.api.volume_migrate, 'data', where, options=options)

    def test_an_attachment(self):
        """Given a volume whose array does not answer, then no guest gets it; and it gets it once the array answers again."""
        self.lose('alpha@gold')
        self.refused_by('alpha@gold', self.api.volume_attach, 'data', 'web')
        self.world.start('alpha@gold')
        wait_for(lambda: self.api.backend_show('alpha@gold')['state'] == 'up', 'the array up')
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
