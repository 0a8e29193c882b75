"""The volume driver `file` with its own storage daemons and real NBD clients: the contract, and what becomes of the daemons."""
import os
import pathlib
import signal
import socket
import types
import uuid
from unittest import mock

from migrator import concurrency, exceptions
from migrator.rpc import volume_facts as vf
from migrator.states import LunState
from migrator.volume.drivers.file.driver import FileDriver
from migrator.volume.drivers.file.served import Served
from migrator.volume.pools import MARK
from tests import base
from tests.contract import volume_driver
from tests.contract.volume_driver import MIB, SIZE
from tests.functional.nbd_clients import NbdClients, storage_daemons
from tests.lab.processes import wait_until
from tests.service_keeper import free_port

#: How many ports a driver of a test may use.
PORTS = 8


class FileHarness(NbdClients, volume_driver.VolumeHarness):
    """Two drivers with a folder each."""

    def __init__(self, folder):
        self.folder = folder
        self.ports = {name: free_port('127.0.0.1') for name in 'ab'}
        for name in 'ab':
            (folder / name / 'fast').mkdir(parents=True)
        self.a, self.b = (self.driver(name) for name in 'ab')

    def driver(self, name):
        """Start a driver."""
        conf = types.SimpleNamespace(
            pools={'fast': str(self.folder / name / 'fast')}, run_directory=str(self.folder / name / 'run'), array_timeout=10.0,
            array_patience=30.0, listen_address='127.0.0.1', first_port=self.ports[name], last_port=self.ports[name] + PORTS)
        driver = FileDriver(conf, 'host', name)
        concurrency.run_native(driver.start)
        return driver

    def daemons(self, driver):
        """Process ids of a driver's storage daemons, by what they were started with."""
        return storage_daemons(driver.conf.run_directory)

    def kill(self, driver):
        """Kill a driver's storage daemons, as an out-of-memory killer would."""
        for process in self.daemons(driver):
            os.kill(process, signal.SIGKILL)
        self.await_end(driver)

    def await_end(self, driver):
        """Wait until no daemon is left."""
        wait_until(lambda: not self.daemons(driver), 20, 'the end of the storage daemons')

    def left(self, driver):
        return {path.name for path in pathlib.Path(driver.conf.pools['fast']).iterdir()} - {MARK}

    def restart_array(self, driver):
        self.kill(driver)

    def restart_driver(self, driver):
        driver.stop()
        return self.driver(driver.backend)

    def close(self):
        """Leave no daemon behind."""
        self.kill(self.a)
        self.kill(self.b)


class FileCase(base.TestCase):
    """Two drivers."""

    def file_harness(self):
        """Make the drivers, whose daemons end with the test."""
        harness = FileHarness(self.temp_dir)
        self.addCleanup(harness.close)
        return harness


class ContractTest(volume_driver.VolumeDriverContract, FileCase):
    """The life of a LUN."""

    make_harness = FileCase.file_harness


class DaemonsTest(FileCase):
    """A daemon for each LUN that is exported, and none else."""

    def setUp(self):
        super().setUp()
        self.harness = self.file_harness()
        self.a = self.harness.a
        self.owner = str(uuid.uuid4())

    def lun(self, name):
        """Make a LUN and export it; returns its Connection."""
        self.a.create('fast', name, SIZE, self.owner)
        return self.a.export('fast', name, f'{name}-export', True)

    def test_it_has_no_features_of_migration(self):
        connection = self.lun('vol')
        target = vf.Target(self.owner, self.owner, 'host', 'b', 'fast', 'new', SIZE)
        self.assertEqual((False, {}), self.a.migrate_volume(self.a.show('fast', 'vol'), target))
        self.assertEqual((False, False, {}), self.harness.b.migrate_volume_target(self.a.show('fast', 'vol'), connection, target))
        self.assertEqual(set(), self.harness.left(self.harness.b))

    def test_each_lun_has_a_port_and_a_daemon_while_it_is_exported(self):
        one, two = self.lun('one'), self.lun('two')
        self.harness.write(one, 0, MIB, 0x11)
        self.harness.write(two, 0, MIB, 0x22)
        self.assertEqual((b'\x11', b'\x22', 2), (self.harness.read(one)[:1], self.harness.read(two)[:1], len(self.harness.daemons(self.a))))
        self.assertNotEqual(one.uri.split('/')[2], two.uri.split('/')[2])
        for name in ('one', 'two'):
            self.a.unexport('fast', name, f'{name}-export')
        self.harness.await_end(self.a)
        self.a.delete('fast', 'one', self.owner)
        self.assertEqual(one.uri.split('/')[2], self.lun('three').uri.split('/')[2], 'a port that is free is used again')

    def test_exports_outlive_the_agent_and_keep_their_clients(self):
        connection = self.lun('vol')
        with self.harness.holding(connection):
            before = self.harness.daemons(self.a)
            self.a = self.harness.restart_driver(self.a)
            self.assertEqual(before, self.harness.daemons(self.a))
            self.assertRaises(exceptions.PreconditionFailed, self.a.unexport, 'fast', 'vol', 'vol-export')
        self.assertEqual(connection, self.a.export('fast', 'vol', 'vol-export', True))

    def test_what_was_served_when_the_host_went_down_is_served_at_the_same_place(self):
        connection = self.lun('vol')
        self.harness.write(connection, 0, MIB, 0x33)
        self.harness.kill(self.a)
        self.a = self.harness.restart_driver(self.a)
        self.assertEqual(b'\x33' * MIB, self.harness.read(connection)[:MIB])

    def test_a_port_of_another_program_is_passed_over(self):
        with socket.socket() as other:
            other.bind(('127.0.0.1', self.harness.ports['a']))
            other.listen()
            connection = self.lun('vol')
            self.assertEqual(SIZE, len(self.harness.read(connection)))
            self.assertNotIn(f':{self.harness.ports["a"]}/', connection.uri)

    def test_without_a_free_port_it_fails_in_words_and_nothing_is_exported(self):
        for number in range(PORTS + 1):
            self.lun(f'vol-{number}')
        self.a.create('fast', 'last', SIZE, self.owner)
        error = self.assertRaises(exceptions.DriverError, self.a.export, 'fast', 'last', 'e', True)
        self.assertIn('ports', str(error))
        self.assertEqual((LunState.READY, ()), (self.a.show('fast', 'last').state, self.a.show('fast', 'last').exports))

    def test_one_lun_that_cannot_be_served_does_not_keep_the_others(self):
        good, bad = self.lun('good'), self.lun('bad')
        self.harness.kill(self.a)
        path = self.temp_dir / 'a' / 'fast' / 'bad.raw'
        path.rename(path.with_name('away'))
        self.a = self.harness.restart_driver(self.a)
        self.assertEqual((True, False), (self.harness.serves(good), self.harness.serves(bad)))
        path.with_name('away').rename(path)
        self.a.pools()
        self.assertTrue(self.harness.serves(bad))

    def test_a_daemon_that_a_dying_agent_left_without_exports_is_ended(self):
        self.lun('vol')
        with mock.patch.object(Served, 'drop_nodes', side_effect=exceptions.DriverError('the agent died')):
            self.assertRaises(exceptions.DriverError, self.a.unexport, 'fast', 'vol', 'vol-export')
        self.assertEqual(1, len(self.harness.daemons(self.a)))
        self.a = self.harness.restart_driver(self.a)
        self.harness.await_end(self.a)
        self.a.delete('fast', 'vol', self.owner)
        self.assertEqual(set(), self.harness.left(self.a))
