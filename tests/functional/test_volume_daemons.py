"""Volume agents as daemons of their own, on a real broker and database: heartbeats, operations, and what a death leaves."""
import dataclasses
import itertools
import os
import signal
import uuid

from migrator.rpc import facts
from migrator.rpc import volume_facts as vf
from migrator.rpc.context import MigratorContext
from migrator.rpc.volume import VolumeAPI
from migrator.states import OperationState
from migrator.volume.pools import MARK
from tests import base, services
from tests.cluster import Cluster
from tests.functional.nbd_clients import NbdClients, storage_daemons
from tests.service_keeper import free_port

MIB = 1 << 20


class VolumeDaemonsTest(base.TestCase):
    """One volume agent with two simulated arrays."""

    timeout = 120

    def setUp(self):
        super().setUp()
        urls = self.useFixture(services.Broker()).url, self.useFixture(services.Database('mysql')).url
        self.cluster = self.useFixture(Cluster(*urls, hosts=('one',), arm=True, arrays={'store': {'a': {}, 'b': {'take_over': 'no'}}}))
        api = self.cluster.api
        self.api = VolumeAPI(self.conf.conf, api._client.transport)
        self.context = MigratorContext(overwrite=False)
        self.migration, self.volume_id = str(uuid.uuid4()), str(uuid.uuid4())
        self.lun = vf.LunRef('store', 'a', 'fast', f'volume-{self.volume_id}')

    def begin(self, name, attempt=1, **arguments):
        """Begin an operation; returns its op_id, whether or not it was acknowledged."""
        envelope = facts.Envelope(f'{self.migration}/{name}/{attempt}', self.migration, attempt)
        getattr(self.api, name)(self.context, 'store', envelope, **arguments)
        return envelope.op_id

    def end(self, op_id):
        """Wait for an operation's end; returns its Report."""
        def look():
            report = self.api.get_operation(self.context, 'store', op_id)
            return report if report.state.finished else None
        return self.cluster.wait_for(look, f'the end of {op_id}')

    def test_what_is_made_is_there_and_a_death_in_between_is_told(self):
        spec = vf.VolumeSpec(self.volume_id, self.lun, 16 * MIB)
        self.assertEqual({'locator': {'lun': self.lun.lun}}, self.end(self.begin('create_volume', spec=spec)).result)
        self.assertEqual([('store@a', 'fast', self.lun.lun, self.migration)], self.cluster.arrays.luns())
        self.cluster.kill_at('done', 'delete_volume', 'store')
        op_id = self.begin('delete_volume', lun=self.lun)
        dead = self.cluster.await_death()
        self.assertEqual('store', dead.name)
        self.assertEqual([], self.cluster.arrays.luns())
        self.cluster.restart(dead)
        self.assertEqual(OperationState.INTERRUPTED, self.end(op_id).state)
        self.assertEqual(OperationState.SUCCEEDED, self.end(self.begin('delete_volume', 2, lun=self.lun)).state)

    def test_it_ends_in_order_and_says_so(self):
        daemon = self.cluster.daemons['store']
        daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(0, daemon.process.wait(30))
        self.cluster.wait_for(lambda: self.cluster.api.backend_show('store@a')['state'] == 'down', 'the backend down')
        self.cluster.restart(daemon)
        self.cluster.wait_for(lambda: self.cluster.api.backend_show('store@a')['state'] == 'up', 'the backend up')


class FilesTest(base.TestCase):
    """One volume agent with two pools of plain files, which real storage daemons serve."""

    timeout = 120

    def setUp(self):
        super().setUp()
        urls = self.useFixture(services.Broker()).url, self.useFixture(services.Database('mysql')).url
        for pool in ('fast', 'slow'):
            (self.temp_dir / pool).mkdir()
        files = {'driver': 'file', 'pools': f'fast:{self.temp_dir}/fast,slow:{self.temp_dir}/slow', 'run_directory': self.temp_dir / 'run',
                 'first_port': free_port('127.0.0.1'), 'last_port': 65535}
        self.addCleanup(self.end_servers)
        self.cluster = self.useFixture(Cluster(*urls, hosts=('one',), arrays={'store': {'files': files}}))
        self.api = VolumeAPI(self.conf.conf, self.cluster.api._client.transport)
        self.context = MigratorContext(overwrite=False)
        self.owner, self.volume = str(uuid.uuid4()), str(uuid.uuid4())
        self.epochs = itertools.count(1)

    def end_servers(self):
        """Leave no storage daemon behind."""
        for process in storage_daemons(self.temp_dir / 'run'):
            os.kill(process, signal.SIGKILL)

    def do(self, name, **arguments):
        """Do an operation that has to succeed; returns its result."""
        epoch = next(self.epochs)
        envelope = facts.Envelope(f'{self.owner}/{name}/{epoch}', self.owner, epoch)
        getattr(self.api, name)(self.context, 'store', envelope, **arguments)

        def look():
            report = self.api.get_operation(self.context, 'store', envelope.op_id)
            return report if report.state.finished else None
        report = self.cluster.wait_for(look, f'the end of {name}', timeout=60)
        self.assertEqual(OperationState.SUCCEEDED, report.state, report)
        return report.result

    def test_what_is_served_outlives_the_agent_and_a_copy_of_it_is_whole(self):
        """Given an exported volume, when its agent is killed, clients go on; its successor copies it from pool to pool, and tidies up."""
        source = vf.LunRef('store', 'files', 'fast', f'volume-{self.volume}')
        self.do('create_volume', spec=vf.VolumeSpec(self.volume, source, 16 * MIB))
        attachment = vf.VolumeAttachment(self.owner, self.volume, source)
        connection = facts.from_wire(vf.Connection, self.do('export_attachment', attachment=attachment)['connection'])
        clients = NbdClients()
        with clients.holding(connection):
            daemon = self.cluster.daemons['store']
            daemon.kill()
            clients.write(connection, MIB, MIB, 0x5a)
            self.cluster.restart(daemon)
        expected = bytes(MIB) + b'\x5a' * MIB + bytes(14 * MIB)
        self.assertTrue(clients.read(connection) == expected)
        self.do('unexport_attachment', attachment=attachment)
        target = vf.Target(self.owner, self.volume, 'store', 'files', 'slow', f'{source.lun}-new', 16 * MIB)
        plan = vf.VolumePlan(self.owner, self.volume, source, target, 16 * MIB, force_host_copy=True, verification='full')
        plan = dataclasses.replace(plan, connection=facts.from_wire(vf.Connection, self.do('export_volume', plan=plan)['connection']))
        for step in ('create_target_volume', 'copy_volume', 'verify_volume', 'unexport_volume', 'delete_source_volume'):
            self.do(step, plan=plan)
        self.assertTrue((self.temp_dir / 'slow' / f'{target.lun}.raw').read_bytes() == expected)
        self.assertEqual([MARK], [path.name for path in (self.temp_dir / 'fast').iterdir()])
        self.cluster.wait_for(lambda: not storage_daemons(self.temp_dir / 'run'), 'the end of the storage daemons')
