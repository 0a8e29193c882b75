"""The host copy by a real volume agent between real arrays: killed in mid-copy, cancelled, throttled, within one array."""
import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import uuid

from migrator.rpc import facts
from migrator.rpc import volume_facts as vf
from migrator.rpc.context import MigratorContext
from migrator.rpc.volume import VolumeAPI
from migrator.states import LunState, OperationState
from tests import base, services
from tests.cluster import Cluster
from tests.functional.test_copying import copiers
from tests.lab.array import Array

MIB = 1 << 20
SIZE = 48 * MIB


class HostCopyTest(base.TestCase):
    """Given one agent with two real arrays of two pools each, and a volume of random data at the first."""

    timeout = 180

    def setUp(self):
        super().setUp()
        urls = self.useFixture(services.Broker()).url, self.useFixture(services.Database('mysql')).url
        self.arrays = {name: self.useFixture(Array(name, pools=('fast', 'slow'))) for name in 'ab'}
        backends = {name: {'driver': 'qsd', 'pools': ','.join(f'{pool}:{path}' for pool, path in array.pools.items()), 'format': 'raw',
                           'qmp_socket': array.socket, 'listen_address': array.address, 'listen_port': array.port}
                    for name, array in self.arrays.items()}
        self.cluster = self.useFixture(Cluster(*urls, hosts=('one',), arrays={'store': backends}))
        self.api = VolumeAPI(self.conf.conf, self.cluster.api._client.transport)
        self.context = MigratorContext(overwrite=False)
        self.epochs = itertools.count(1)
        self.migration, self.volume = str(uuid.uuid4()), str(uuid.uuid4())
        self.source = vf.LunRef('store', 'a', 'fast', f'volume-{self.volume}')
        self.data = os.urandom(SIZE // 2) + bytes(SIZE // 2)
        self.do('create_volume', spec=vf.VolumeSpec(self.volume, self.source, SIZE))
        self.plan = self.planned('b', 'fast')
        with open(self.file('a', 'fast', self.source.lun), 'r+b') as stream:
            stream.write(self.data[:SIZE // 2])

    def planned(self, backend, pool, **more):
        """Make a plan, with the connection of the source's export."""
        target = vf.Target(self.migration, self.volume, 'store', backend, pool, f'{self.source.lun}-{self.migration[:8]}', SIZE)
        plan = vf.VolumePlan(self.migration, self.volume, self.source, target, SIZE, force_host_copy=True, verification='full', **more)
        said = self.do('export_volume', plan=plan).result['connection']
        return dataclasses.replace(plan, connection=facts.from_wire(vf.Connection, said))

    def file(self, backend, pool, lun):
        return pathlib.Path(self.arrays[backend].pools[pool]) / f'{lun}.raw'

    def target_file(self):
        return self.file(self.plan.target.backend, self.plan.target.pool, self.plan.target.lun)

    def begin(self, name, **arguments):
        """Begin an operation; returns its op_id."""
        epoch = next(self.epochs)
        envelope = facts.Envelope(f'{self.migration}/{name}/{epoch}', self.migration, epoch)
        getattr(self.api, name)(self.context, 'store', envelope, **arguments)
        return envelope.op_id

    def end(self, op_id):
        """Wait for an operation's end; returns its Report."""
        def look():
            report = self.api.get_operation(self.context, 'store', op_id)
            return report if report.state.finished else None
        return self.cluster.wait_for(look, f'the end of {op_id}', timeout=60)

    def do(self, name, **arguments):
        """Do an operation that has to succeed; returns its Report."""
        report = self.end(self.begin(name, **arguments))
        self.assertEqual(OperationState.SUCCEEDED, report.state, report)
        return report

    def progress(self):
        return self.api.volume_progress(self.context, 'store', self.migration)

    def finish(self):
        """Verify, and give up the source; the volume's data is then at the target, and nothing else is left."""
        self.do('verify_volume', plan=self.plan)
        self.do('unexport_volume', plan=self.plan)
        self.do('delete_source_volume', plan=self.plan)
        self.assertTrue(self.target_file().read_bytes() == self.data)
        self.assertFalse(self.file('a', 'fast', self.source.lun).exists())
        self.assert_nothing_runs()

    def assert_nothing_runs(self):
        self.assertEqual([], copiers(self.cluster.folder))
        self.assertEqual([], list(self.cluster.folder.rglob('copy-*.json')))

    def test_an_agent_that_is_killed_in_mid_copy_goes_on(self):
        """Given a slow copy, when its agent is killed, then no copier is left; the next agent moves what is missing, no more."""
        self.do('create_target_volume', plan=self.plan)
        slow = self.changed(bandwidth=4 * MIB)
        op_id = self.begin('copy_volume', plan=slow)
        self.cluster.wait_for(lambda: self.progress().done >= 6 * MIB, 'some of the copy')
        daemon = self.cluster.daemons['store']
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait(10)
        self.cluster.wait_for(lambda: not copiers(self.cluster.folder), 'the end of the copier')
        self.cluster.restart(daemon)
        self.assertEqual(OperationState.INTERRUPTED, self.end(op_id).state)
        moved = self.do('copy_volume', plan=self.plan).result['bytes']
        self.assertTrue(0 < moved <= SIZE // 2 - 6 * MIB, moved)
        self.finish()

    def changed(self, **values):
        return dataclasses.replace(self.plan, **values)

    def test_a_copy_within_one_array_is_a_copy(self):
        """Given a target in another pool of the same array, when it is copied and verified, then the target has the data."""
        self.plan = self.changed(target=vf.Target(self.migration, self.volume, 'store', 'a', 'slow', f'{self.source.lun}-new', SIZE))
        self.do('create_target_volume', plan=self.plan)
        self.do('copy_volume', plan=self.plan)
        self.finish()

    def test_a_copy_that_is_cancelled_leaves_the_source_alone(self):
        self.do('create_target_volume', plan=self.plan)
        op_id = self.begin('copy_volume', plan=self.changed(bandwidth=MIB))
        self.cluster.wait_for(lambda: self.progress().active, 'the copy')
        self.assertTrue(self.api.set_copy_rate(self.context, 'store', self.migration, 4 * MIB))
        self.cluster.wait_for(lambda: self.progress().done >= 6 * MIB, 'some of the copy')
        self.assertTrue(self.api.cancel_volume_job(self.context, 'store', self.migration))
        self.assertEqual('MigrationAborted', self.end(op_id).error_type)
        self.do('delete_target_volume', plan=self.plan)
        self.do('unexport_volume', plan=self.plan)
        self.assertEqual(set(), self.arrays['b'].files())
        self.assertTrue(self.file('a', 'fast', self.source.lun).read_bytes() == self.data)
        self.assertEqual(LunState.ABSENT, self.api.locate_volume(
            self.context, 'store', vf.LunRef('store', 'b', 'fast', self.plan.target.lun), self.migration, next(self.epochs)).lun.state)
        self.assert_nothing_runs()

    def test_an_array_that_dies_in_mid_copy_and_comes_back(self):
        """Given an array that is started again in mid-copy, then the copy goes on behind what was flushed, and nobody hears of it."""
        self.do('create_target_volume', plan=self.plan)
        op_id = self.begin('copy_volume', plan=self.changed(bandwidth=4 * MIB))
        self.cluster.wait_for(lambda: self.progress().done >= 6 * MIB, 'some of the copy')
        self.arrays['b'].restart()
        self.assertTrue(self.api.set_copy_rate(self.context, 'store', self.migration, 0))
        report = self.end(op_id)
        self.assertEqual(OperationState.SUCCEEDED, report.state, report)
        self.assertLessEqual(report.result['bytes'], SIZE - 6 * MIB, 'it began at zero')
        self.finish()

    def test_a_copy_that_was_damaged_is_found_out(self):
        self.do('create_target_volume', plan=self.plan)
        self.do('copy_volume', plan=self.plan)
        subprocess.run(['qemu-io', '-f', 'raw', '-c', f'write -P 0xee {40 * MIB} 512', '-c', 'flush',
                        f'nbd://{self.arrays["b"].address}:{self.arrays["b"].port}/{self.plan.copy_export}'], check=True,
                       capture_output=True, timeout=30)
        report = self.end(self.begin('verify_volume', plan=self.plan))
        self.assertEqual(('DriverError', True), (report.error_type, 'differs' in report.error), report)
        self.assertTrue(self.file('a', 'fast', self.source.lun).read_bytes() == self.data)
