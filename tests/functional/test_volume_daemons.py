"""Volume agents as daemons of their own, on a real broker and database: heartbeats, operations, and what a death leaves."""
import signal
import uuid

from migrator.rpc import facts
from migrator.rpc import volume_facts as vf
from migrator.rpc.context import MigratorContext
from migrator.rpc.volume import VolumeAPI
from migrator.states import OperationState
from tests import base, services
from tests.cluster import Cluster

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
