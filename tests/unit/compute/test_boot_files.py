"""Which files of a host a guest may be booted from."""
import os
import pathlib

import fixtures
import testtools

from migrator import exceptions
from migrator.compute import boot_files


class CheckTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (self.root / 'boot').mkdir()
        (self.root / 'secret').write_text('x')
        (self.root / 'boot' / 'vmlinuz').write_text('x')

    def check(self, path, directories=('boot',)):
        boot_files.check([str(self.root / path)], [str(self.root / d) for d in directories], 'alpha', os.path.realpath)

    def refused(self, path, directories=('boot',)):
        error = self.assertRaises(exceptions.InvalidRequest, self.check, path, directories)
        self.assertIn('is in none of the directories of alpha', str(error))
        return str(error)

    def test_a_file_in_a_directory_that_is_named(self):
        self.check('boot/vmlinuz')
        self.check('boot/../boot/./vmlinuz')
        self.check('boot/vmlinuz', ('elsewhere', 'boot/'))

    def test_a_file_elsewhere(self):
        """Given a path that leads elsewhere, as it is written or by a link, or that only begins like a directory, it is refused."""
        (self.root / 'boot' / 'link').symlink_to(self.root / 'secret')
        (self.root / 'boot' / 'up').symlink_to(self.root)
        (self.root / 'boot-2').mkdir()
        for path in ('secret', 'boot/../secret', 'boot/link', 'boot/up/secret', 'boot-2/vmlinuz', 'boot'):
            self.assertIn(str(self.root / 'boot'), self.refused(path))

    def test_a_directory_that_is_a_link_itself(self):
        (self.root / 'kernels').symlink_to(self.root / 'boot')
        self.check('kernels/vmlinuz', ('kernels',))
        self.check('boot/vmlinuz', ('kernels',))

    def test_no_directory_or_a_relative_one_permits_nothing(self):
        self.assertIn('there is none', self.refused('boot/vmlinuz', ()))
        self.assertRaises(exceptions.InvalidRequest, boot_files.check, ['/x'], ['', '.'], 'alpha', os.path.realpath)
        self.assertRaises(exceptions.InvalidRequest, boot_files.check, ['vmlinuz'], [os.getcwd()], 'alpha', os.path.realpath)

    def test_the_root_permits_everything(self):
        boot_files.check([str(self.root / 'secret')], ['/'], 'alpha', os.path.realpath)
