"""The volume driver `qsd` as a source that moves LUNs by itself: from pool to pool of one real storage daemon."""
import dataclasses
import subprocess
import threading
import time
import uuid

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from migrator.states import LunState
from tests import base
from tests.contract.volume_driver import MIB
from tests.functional.test_qsd_driver import QsdHarness

SIZE = 32 * MIB
DATA_AT = 24 * MIB


class MovesCase(base.TestCase):
    """A LUN in the pool `fast`, an eighth of it data, that is to go to `slow`."""

    timeout = 120
    form = None

    def setUp(self):
        super().setUp()
        self.harness = QsdHarness(self.useFixture, self.form, pools=('fast', 'slow'))
        self.a = self.harness.a
        self.a.create('fast', 'vol', SIZE, str(uuid.uuid4()))
        self.harness.write(self.a.export('fast', 'vol', 'vol-export', True), DATA_AT, 4 * MIB, 0x5a)
        self.a.unexport('fast', 'vol', 'vol-export')
        self.target = facts.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'a', 'slow', 'vol-new', SIZE)

    def move(self, driver=None, **changes):
        """Ask for it; returns the answer."""
        driver = driver or self.a
        return driver.migrate_volume(driver.show('fast', 'vol'), dataclasses.replace(self.target, **changes))

    def moving(self):
        """Ask for it in a thread, at a rate at which it takes some seconds, and wait until data is on its way. Returns the thread, and a
        list that has the answer, or the error, at the end."""
        answers = []

        def ask(driver=self.a):
            try:
                answers.append(self.move(driver, bandwidth=MIB // 2))
            except exceptions.DriverError as error:
                answers.append(error)
        thread = threading.Thread(target=ask)
        thread.start()
        self.addCleanup(thread.join, 60)
        self.wait_for(lambda: self.a.progress('slow', 'vol-new').done >= MIB or answers, 'some of the data')
        self.assertEqual(([], LunState.MIRRORING), (answers, self.a.show('slow', 'vol-new').state))
        return thread, answers

    def end(self, thread, answers):
        """Wait for the answer, and return it."""
        thread.join(60)
        return answers[0]

    def assert_moved(self):
        """It is whole in the other pool, thin, and needs nothing of where it was."""
        shown = self.a.show('slow', 'vol-new')
        self.assertEqual((LunState.READY, ''), (shown.state, shown.mirror))
        self.assertLess(shown.allocated, 6 * MIB)
        self.a.delete('fast', 'vol')
        self.assertEqual([], [name for name in self.harness.arrays['a'].files('fast') if name.startswith('vol')])
        for _ in range(2):
            data = self.harness.read(self.a.export('slow', 'vol-new', 'new-export', False))
            self.assertTrue(data == bytes(DATA_AT) + b'\x5a' * 4 * MIB + bytes(SIZE - DATA_AT - 4 * MIB), 'the data differs')
            self.harness.restart_array(self.a)
            self.a.pools()

    def answer(self):
        """What the driver says that has moved it."""
        return True, {'locator': {'lun': 'vol-new', 'format': self.form}}

    def assert_it_moves(self):
        """It does, and asked twice it is one."""
        self.assertEqual(self.answer(), self.move())
        self.assertEqual(LunState.READY, self.a.show('fast', 'vol').state)
        self.assertEqual(self.answer(), self.move())
        self.assert_moved()


class RawTest(MovesCase):
    """LUNs as raw files."""

    form = 'raw'

    def test_to_another_pool(self):
        self.assert_it_moves()


class Qcow2Test(MovesCase):
    """LUNs as qcow2 files; and what may come in between."""

    form = 'qcow2'

    def test_to_another_pool(self):
        self.assert_it_moves()

    def test_to_another_array_it_declines(self):
        for changes in ({'backend': 'b'}, {'host': 'other'}):
            self.assertEqual((False, {}), self.move(**changes))
        self.assertEqual(set(), self.harness.arrays['a'].files('slow'))

    def test_the_limit_is_lifted(self):
        thread, answers = self.moving()
        began = time.monotonic()
        self.assertTrue(self.a.set_mirror_rate('slow', 'vol-new', 0))
        self.assertEqual(self.answer(), self.end(thread, answers))
        self.assertLess(time.monotonic() - began, 30)
        self.assert_moved()

    def test_the_array_dies(self):
        """Given an array that dies meanwhile, when it is back, then it begins anew, and the driver returns when all is there."""
        thread, answers = self.moving()
        self.harness.restart_array(self.a)
        self.a.pools()
        self.a.set_mirror_rate('slow', 'vol-new', 0)
        self.assertEqual(self.answer(), self.end(thread, answers))
        self.assert_moved()

    def test_the_agent_ends(self):
        """Given an agent that ends meanwhile, then nothing says that it has moved; the next one that is asked goes on with it."""
        thread, answers = self.moving()
        self.a.stop()
        self.assertIsInstance(self.end(thread, answers), exceptions.DriverError)
        self.a = self.harness.driver('a')
        self.assertEqual((LunState.READY, LunState.MIRRORING), (self.a.show('fast', 'vol').state, self.a.show('slow', 'vol-new').state))
        self.assertEqual(self.answer(), self.move())
        self.assert_moved()

    def test_it_is_undone(self):
        """Given a move under way that is given up, when what was made is removed, then nothing of it is left, and nobody else may remove
        it; the volume is where it was, and not even open."""
        thread, answers = self.moving()
        self.a.stop()
        self.end(thread, answers)
        self.a = self.harness.driver('a')
        self.assertRaises(exceptions.PreconditionFailed, self.a.delete, 'slow', 'vol-new', str(uuid.uuid4()))
        self.a.delete('slow', 'vol-new', self.target.migration_id)
        self.a.delete('slow', 'vol-new', self.target.migration_id)
        self.assertEqual(set(), self.harness.arrays['a'].files('slow'))
        path = f'{self.harness.arrays["a"].pools["fast"]}/vol.qcow2'
        subprocess.run(['qemu-img', 'check', '-q', path], check=True, timeout=30)       # it would not be let to a file that is open
        self.a.extend('fast', 'vol', 2 * SIZE)
        self.assertEqual(self.answer(), self.move(size=2 * SIZE))

    def test_a_pool_that_is_full(self):
        """Given a pool without room, then that is an error, and nothing is made."""
        self.assertRaises(exceptions.NoSpace, self.move, size=1 << 50)
        self.assertEqual(set(), self.harness.arrays['a'].files('slow'))
