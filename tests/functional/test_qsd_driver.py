"""The volume driver `qsd` against real storage daemons and real NBD clients: the contract, and both sides of its marker."""
import contextlib
import dataclasses
import signal
import subprocess
import time
import types
import uuid
from unittest import mock

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from migrator.states import LunState
from migrator.volume import reach
from migrator.volume.array import Array as ArraySide
from migrator.volume.drivers.qsd.driver import QsdDriver
from migrator.volume.qmp import ArraySilent
from migrator.volume.records import SPARE
from tests import base
from tests.contract import volume_driver
from tests.contract.volume_driver import MIB, SIZE
from tests.functional.keys import make_keys
from tests.functional.nbd_clients import NbdClients
from tests.lab.array import Array


class QsdHarness(NbdClients, volume_driver.VolumeHarness):
    """Two storage daemons; clients are qemu-io, nbdcopy and nbdinfo. keys: folder of certificates; those named in `tls` want TLS.
    take_over: the option. pools: of each array. state_path: of both agents."""

    def __init__(self, use_fixture, form, keys=None, tls='ab', take_over='async', pools=('fast',), state_path=''):
        self.form = form
        self.state_path = state_path
        self.keys = keys
        self.take_over = take_over
        self.arrays = {name: use_fixture(Array(name, pools, keys=keys if name in tls else None)) for name in 'ab'}
        self.a, self.b = (self.driver(name) for name in 'ab')

    def driver(self, name):
        """Start a driver for an array."""
        array = self.arrays[name]
        conf = types.SimpleNamespace(
            pools=array.pools, qmp_socket=str(array.socket), array_timeout=10.0, array_patience=30.0, format=self.form,
            take_over=self.take_over, tls_credentials=str(array.keys or ''), listen_address=array.address, listen_port=array.port)
        driver = QsdDriver(conf, 'host', name)
        driver.state_path = self.state_path
        driver.start()
        return driver

    def left(self, driver):
        return self.arrays[driver.backend].files()

    def restart_array(self, driver):
        self.arrays[driver.backend].restart()

    def restart_driver(self, driver):
        driver.stop()
        return self.driver(driver.backend)


class RawTest(volume_driver.VolumeDriverContract, base.TestCase):
    """LUNs as raw files."""

    def make_harness(self):
        return QsdHarness(self.useFixture, 'raw')

    def test_the_name_of_an_export_is_of_one_lun(self):
        """Given an export, when another LUN is to be exported under its name, then that is refused, also after a restart of the array,
        and the export serves what it served."""
        connection = self.lun()
        self.harness.write(connection, 0, MIB, 0x5a)
        self.a.create('fast', 'other', MIB, self.owner)
        for _ in range(2):
            with self.assertRaises(exceptions.PreconditionFailed):
                self.a.export('fast', 'other', 'vol-export', True)
            self.assertEqual((), self.a.show('fast', 'other').exports)
            self.assertEqual(b'\x5a' * MIB, self.harness.read(connection)[:MIB])
            self.harness.restart_array(self.a)


class Qcow2Test(volume_driver.VolumeDriverContract, base.TestCase):
    """LUNs as qcow2 files."""

    def make_harness(self):
        return QsdHarness(self.useFixture, 'qcow2')


    def test_snapshots_in_the_file_are_told(self):
        """Given snapshots that somebody made, then the driver tells how many, so that the volume is not moved without them."""
        self.a.create('fast', 'vol', SIZE, self.owner)
        self.assertEqual(0, self.a.show('fast', 'vol').snapshots)
        snapshot(self.harness.arrays['a'], 'vol', 'one')
        snapshot(self.harness.arrays['a'], 'vol', 'two')
        self.assertEqual([2, 2], [self.a.show('fast', 'vol').snapshots, self.a.list()[0].snapshots])


def snapshot(array, lun, name):
    """Make a snapshot inside a qcow2 file that nobody has open."""
    subprocess.run(['qemu-img', 'snapshot', '-c', name, f'{array.pools["fast"]}/{lun}.qcow2'], check=True, timeout=60)


class TakeoverTest(volume_driver.TakeoverContract, base.TestCase):
    """Seed 001 between two of them, and the array's death on both sides of the marker."""

    def make_harness(self):
        return QsdHarness(self.useFixture, 'qcow2')

    def test_a_lun_of_the_same_daemon_is_declined(self):
        """Given a daemon that serves two backends, when one is asked to take over from the other, by whatever name of the daemon, then it
        declines, nothing is made, and the daemon answers."""
        other = self.harness.driver('a')
        target = dataclasses.replace(self.target, backend='a')
        before = self.harness.left(self.a)
        for host in ('127.0.0.1', 'localhost', '127.0.0.9'):
            there = dataclasses.replace(self.source, uri=self.source.uri.replace('127.0.0.1', host))
            self.assertEqual((False, False, {}), other.migrate_volume_target(self.a.show('fast', 'vol'), there, target), host)
            self.assertEqual((before, True), (self.harness.left(self.a), self.harness.serves(self.source)), host)

    def die_instead_of_switching(self, marked):
        """The array dies at the moment at which it should switch; `marked` gets what the record said then."""
        def switch(array, record):
            marked.append(self.b._records.get(record.pool, record.name).mirror.local_is_complete)
            self.harness.arrays['b'].kill()
            raise ArraySilent('killed')
        return mock.patch.object(ArraySide, 'switch', switch)

    def test_the_array_dies_behind_the_marker(self):
        """Given a mirror that is ready, when the array dies between marker and switch, then the local file is served, whole."""
        connection = self.take_over()
        self.put(connection, 3 * MIB, MIB, 0xcc)
        self.b._takeover._patience = 0.0
        marked = []
        with self.die_instead_of_switching(marked), self.assertRaises(ArraySilent):
            self.b.complete_migration_target(self.target)
        self.assertEqual([True], marked)
        self.a.unexport('fast', 'vol', 'vol-export', force=True)       # nothing may need it any more
        self.harness.arrays['b'].start()
        self.b = self.harness.restart_driver(self.b)
        self.assertTrue(self.harness.read(connection) == bytes(self.model))
        self.b.complete_migration_target(self.target)
        self.assert_whole(connection)

    def test_the_marker_is_taken_back_when_the_mirror_fails(self):
        """Given the marker, when the job fails after all, then a restarted array mirrors from the remote again."""
        connection = self.take_over()

        def switch(array, record):
            array.cancel_mirror(record)         # it ends without a switch: the local file misses what is written from now on
        with mock.patch.object(ArraySide, 'switch', switch), contextlib.suppress(exceptions.DriverError):
            self.b._takeover._look('fast', 'vol-new')
        self.put(connection, 8 * MIB, MIB, 0xab)
        self.b.complete_migration_target(self.target)
        self.assert_whole(connection)


class TakeOverOptionTest(base.TestCase):
    """How an array takes volumes over, if it is not to do it while they are in use."""

    timeout = 120

    def arrange(self, take_over):
        """Make two arrays and a LUN with data at a, and ask b to take it over. Returns b's answer."""
        self.harness = QsdHarness(self.useFixture, 'qcow2', take_over=take_over)
        self.a, self.b = self.harness.a, self.harness.b
        self.a.create('fast', 'vol', SIZE, str(uuid.uuid4()))
        self.source = self.a.export('fast', 'vol', 'vol-export', True)
        self.harness.write(self.source, MIB, MIB, 0x5a)
        self.target = facts.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'b', 'fast', 'vol-new', SIZE)
        return self.ask()

    def ask(self):
        return self.b.migrate_volume_target(self.a.show('fast', 'vol'), self.source, self.target)

    def test_at_once(self):
        """Given an array that takes over at once, then it has all when it returns, needs nothing of the source, and says so again."""
        self.assertEqual((True, False, {'locator': {'lun': 'vol-new', 'format': 'qcow2'}}), self.arrange('sync'))
        self.assertIn('take_over', self.b.capabilities)
        self.a.unexport('fast', 'vol', 'vol-export')            # refused while anybody is connected
        shown = self.b.show('fast', 'vol-new')
        self.assertEqual((LunState.READY, ''), (shown.state, shown.mirror))
        self.assertEqual((True, False), self.ask()[:2])
        self.harness.restart_array(self.b)
        self.b.pools()
        data = self.harness.read(self.b.export('fast', 'vol-new', 'new-export', False))
        self.assertTrue(data == bytes(MIB) + b'\x5a' * MIB + bytes(SIZE - 2 * MIB))

    def test_not_at_all(self):
        self.assertEqual((False, False, {}), self.arrange('no'))
        self.assertEqual((set(), ('move_between_pools', 'thin')), (self.harness.left(self.b), self.b.capabilities))


class SilentSourceTest(base.TestCase):
    """A source whose daemon is frozen: connections are made, and nothing answers."""

    timeout = 120

    def setUp(self):
        super().setUp()
        self.harness = QsdHarness(self.useFixture, 'raw')
        self.a, self.b = self.harness.a, self.harness.b
        owner = str(uuid.uuid4())
        self.a.create('fast', 'vol', MIB, owner)
        self.b.create('fast', 'other', MIB, owner)
        self.source = self.a.export('fast', 'vol', 'vol-export', True)
        self.other = self.b.export('fast', 'other', 'other-export', True)
        self.target = facts.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'b', 'fast', 'vol-new', MIB)
        self.daemon = self.harness.arrays['a'].process
        self.addCleanup(self.daemon.send_signal, signal.SIGCONT)

    def take_over(self):
        """Ask for it."""
        return self.b.migrate_volume_target(facts.Lun('fast', 'vol', size=MIB), self.source, self.target)

    def assert_refused(self):
        """The take-over ends in an error; nothing is left, and the target's other exports are served."""
        with self.assertRaises(exceptions.DriverError):
            self.take_over()
        self.assertEqual({'other.raw', 'other.lun', SPARE}, self.harness.left(self.b))
        self.assertTrue(self.harness.serves(self.other))

    def test_nothing_is_begun_with_it(self):
        self.daemon.send_signal(signal.SIGSTOP)
        self.assert_refused()

    def test_one_that_falls_silent_between_question_and_connection(self):
        self.daemon.send_signal(signal.SIGSTOP)
        with mock.patch('migrator.volume.reach.probe'):
            self.assert_refused()

    def test_it_does_not_take_the_target_down(self):
        """Given a take-over from it, when the target's array restarts, then all else is served at once, it is not asked at every turn, and
        its LUN is served when it answers again."""
        self.take_over()
        connection = self.b.export('fast', 'vol-new', 'new-export', True)
        self.daemon.send_signal(signal.SIGSTOP)
        self.harness.restart_array(self.b)
        with mock.patch('migrator.volume.reach.probe', wraps=reach.probe) as probe:
            self.b.pools()
            self.assertEqual((True, False), (self.harness.serves(self.other), self.harness.serves(connection)))
            self.b.pools()
            self.b.list()
        self.assertEqual(1, probe.call_count)
        self.daemon.send_signal(signal.SIGCONT)
        self.b._unserved._clock = lambda: time.monotonic() + 60
        self.b.pools()
        self.assertTrue(self.harness.serves(connection))
        self.b.complete_migration_target(self.target)


class TlsTest(base.TestCase):
    """Arrays that want TLS of their clients and of each other."""

    timeout = 120

    def arrange(self, tls):
        """Make two arrays, of which those in `tls` want TLS, and a LUN at a. Returns the harness."""
        harness = QsdHarness(self.useFixture, 'raw', make_keys(self.temp_dir / 'keys'), tls)
        harness.a.create('fast', 'vol', SIZE, str(uuid.uuid4()))
        self.source = harness.a.export('fast', 'vol', 'vol-export', True)
        self.target = facts.Target(str(uuid.uuid4()), str(uuid.uuid4()), 'host', 'b', 'fast', 'vol-new', SIZE)
        return harness

    def assert_taken_over(self, harness):
        """A client writes meanwhile, the target's array restarts, and all is there at the end."""
        harness.write(self.source, 0, MIB, 0x11)
        self.assertEqual((True, True), harness.b.migrate_volume_target(harness.a.show('fast', 'vol'), self.source, self.target)[:2])
        connection = harness.b.export('fast', 'vol-new', 'new-export', True)
        harness.write(connection, MIB, MIB, 0x22)
        harness.restart_array(harness.b)
        harness.b.pools()
        harness.write(connection, 2 * MIB, MIB, 0x33)
        harness.b.complete_migration_target(self.target)
        harness.a.unexport('fast', 'vol', 'vol-export')
        self.assertTrue(harness.read(connection) == b'\x11' * MIB + b'\x22' * MIB + b'\x33' * MIB + bytes(SIZE - 3 * MIB))

    def test_from_one_to_the_other(self):
        harness = self.arrange('ab')
        self.assertTrue(self.source.tls)
        without = dataclasses.replace(self.source, uri=self.source.uri.replace('nbds:', 'nbd:'), tls=False)
        self.assertEqual((True, False), (harness.serves(self.source), harness.serves(without)))
        self.assert_taken_over(harness)

    def test_from_one_that_does_not_want_it(self):
        self.assert_taken_over(self.arrange('b'))

    def test_an_array_that_has_no_certificates_declines(self):
        harness = self.arrange('a')
        self.assertEqual((False, False, {}), harness.b.migrate_volume_target(harness.a.show('fast', 'vol'), self.source, self.target))
        self.assertEqual(set(), harness.left(harness.b))
