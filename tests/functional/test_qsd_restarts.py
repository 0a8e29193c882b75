"""A real storage daemon that is started again while something is not as it was: what can be served is; the rest, once it is mended."""
import pathlib
import time
import uuid

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from tests import base
from tests.contract.volume_driver import MIB
from tests.functional.test_qsd_driver import QsdHarness
from tests.functional.test_qsd_moves import SIZE


class RestartTest(base.TestCase):
    """Two LUNs that clients have: `near` in the pool `fast`, `far` in `slow`."""

    timeout = 120

    def setUp(self):
        super().setUp()
        self.harness = QsdHarness(self.useFixture, 'raw', pools=('fast', 'slow'), state_path=str(self.temp_dir))
        self.a, self.array = self.harness.a, self.harness.arrays['a']
        self.exports = {pool: self.lun(pool, lun) for pool, lun in (('fast', 'near'), ('slow', 'far'))}

    def lun(self, pool, lun):
        """Make one with data; returns its connection."""
        self.a.create(pool, lun, SIZE, str(uuid.uuid4()))
        connection = self.a.export(pool, lun, f'{lun}-export', True)
        self.harness.write(connection, 0, MIB, 0x5a)
        return connection

    def assert_served(self, pool):
        self.assertEqual(b'\x5a' * MIB, self.harness.read(self.exports[pool])[:MIB])

    def next_agent(self):
        """Another agent in the place of the one that is there."""
        self.a.stop()
        self.a = self.harness.driver('a')

    def test_who_may_read_the_data(self):
        """Given LUNs in either format, then what guests have written is not for everybody on the array's host."""
        self.harness.b._format = 'qcow2'
        self.harness.b.create('fast', 'vol', SIZE, str(uuid.uuid4()))
        for path in (pathlib.Path(self.array.pools['fast'], 'near.raw'), pathlib.Path(self.harness.arrays['b'].pools['fast'], 'vol.qcow2')):
            self.assertEqual(0, path.stat().st_mode & 0o007, path)

    def test_a_record_that_cannot_be_read(self):
        """Given a record that is damaged, when the array is restarted, then all other LUNs are served, and of that one everybody is told
        what is wrong; when it is mended it is served, without anybody's doing."""
        record = pathlib.Path(self.array.pools['slow'], 'far.lun')
        good = record.read_text(encoding='utf-8')
        record.write_text(good[:30], encoding='utf-8')
        self.harness.restart_array(self.a)
        self.assertEqual(['fast', 'slow'], [pool.name for pool in self.a.pools()])
        self.assert_served('fast')
        self.a.unexport('fast', 'near', 'near-export')
        for act in (lambda: self.a.show('slow', 'far'), lambda: self.a.delete('slow', 'far'),
                    lambda: self.a.export('slow', 'far', 'x', True), self.a.list):
            self.assertIn('far.lun cannot be read', str(self.assertRaises(exceptions.DriverError, act)))
        self.assertEqual(['near.raw'], [name for name in self.array.files('fast') if name.endswith('.raw')])
        record.write_text(good, encoding='utf-8')
        self.wait_for(self.served_again, 'the LUN')

    def served_again(self):
        self.a.pools()
        return 'far.raw' in self.array.exports()

    def test_a_pool_that_is_not_mounted(self):
        """Given a pool whose file system is not mounted, when the array is restarted, then it is told as not there, its LUNs are neither
        gone nor made anew, and the other pool is served; when it is mounted, what it has is served, by that agent and by the next."""
        directory = pathlib.Path(self.array.pools['slow'])
        for stays in (True, False):
            self.array.kill()
            directory.rename(directory.with_name('elsewhere'))
            directory.mkdir()
            self.array.start()
            if not stays:
                self.next_agent()
            said = self.assertRaises(exceptions.DriverError, self.a.pools)
            self.assertIn('pool slow', str(said))
            self.assertIn('is not what it was', str(said))
            self.assert_served('fast')
            for act in (lambda: self.a.delete('slow', 'far'), lambda: self.a.show('slow', 'far'),
                        lambda: self.a.create('slow', 'new', SIZE, str(uuid.uuid4())),
                        lambda: self.a.unexport('slow', 'far', 'far-export')):
                self.assertRaises(exceptions.DriverError, act)
            self.assertEqual([], list(directory.iterdir()))
            directory.rmdir()
            directory.with_name('elsewhere').rename(directory)
            if not stays:
                self.next_agent()                               # the daemon has been met, and lacks that LUN
            self.wait_for(self.there_again, 'the pool')
            self.assert_served('slow')
            self.assert_served('fast')

    def there_again(self):
        try:
            self.a.pools()
        except exceptions.DriverError:
            return False
        return 'far.raw' in self.array.exports()

    def test_a_client_that_leaves_while_the_source_of_its_data_is_silent(self):
        """Given a take-over whose source has died, when a client is to be cut off, then that is refused at once, and the array answers;
        when the source is back, then it is done."""
        source = self.harness.b
        source.create('fast', 'vol', SIZE, str(uuid.uuid4()))
        connection = source.export('fast', 'vol', 'vol-export', True)
        self.harness.write(connection, 0, 8 * MIB, 0x33)
        target = facts.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'a', 'fast', 'vol-new', SIZE, bandwidth=MIB // 4)
        self.a.migrate_volume_target(source.show('fast', 'vol'), connection, target)
        self.a.export('fast', 'vol-new', 'new-export', True)
        self.harness.arrays['b'].kill()
        began = time.monotonic()
        said = self.assertRaises(exceptions.PreconditionFailed, self.a.unexport, 'fast', 'vol-new', 'new-export')
        self.assertIn('is still at another array', str(said))
        self.assert_served('fast')
        self.assertLess(time.monotonic() - began, 30)
        self.harness.arrays['b'].start()
        self.harness.b.pools()
        self.a.unexport('fast', 'vol-new', 'new-export')
        self.assertEqual((), self.a.show('fast', 'vol-new').exports)
