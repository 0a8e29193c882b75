"""Volume agents with simulated arrays, real daemons' code from the request to the report: what conductors will build on."""
import dataclasses
import uuid

from migrator import exceptions
from migrator.rpc import facts
from migrator.rpc import volume_facts as vf
from migrator.rpc.context import MigratorContext
from migrator.rpc.volume import VolumeAPI
from migrator.states import LunState, OperationState
from tests import base
from tests.simulated import Cloud, wait_for

MIB = 1 << 20
SIZE = 16 * MIB
#: A pattern, one byte for each block of 4 KiB.
DATA = bytes(range(1, 251)) * 16


class VolumeAgentsTest(base.TestCase):
    """Two agents, and one agent with two arrays."""

    def build(self, **options):
        """A cloud whose arrays have these options."""
        self.cloud = self.useFixture(Cloud(hosts=('alpha',), arrays={
            'one': {'a': options, 'b': options}, 'two': {'c': {**options, 'types': ['gold']}}}))
        self.api = VolumeAPI(self.cloud.conf('tester'), self.cloud.transport)
        self.context = MigratorContext(overwrite=False)
        self.arrays = self.cloud.volumes.world
        self.epoch = 0

    def volume(self, host='one', backend='a', target=('two', 'c')):
        """A volume with data, and the plan to bring it elsewhere."""
        self.migration, self.volume_id = str(uuid.uuid4()), str(uuid.uuid4())
        self.source = vf.LunRef(host, backend, 'fast', f'volume-{self.volume_id}')
        goal = vf.Target(self.migration, self.volume_id, *target, 'slow', f'volume-{self.volume_id}-{self.migration[:8]}', SIZE)
        self.target = vf.LunRef(goal.host, goal.backend, goal.pool, goal.lun)
        self.plan = vf.VolumePlan(self.migration, self.volume_id, self.source, goal, SIZE)
        self.done('create_volume', host, spec=vf.VolumeSpec(self.volume_id, self.source, SIZE))
        self.arrays.put(f'{host}@{backend}', 'fast', self.source.lun, DATA)

    def begin(self, name, host, **arguments):
        """Begin an operation; returns its op_id."""
        self.epoch += 1
        envelope = facts.Envelope(f'{self.migration}/{name}/{self.epoch}', self.migration, self.epoch)
        getattr(self.api, name)(self.context, host, envelope, **(arguments or {'plan': self.plan}))
        return envelope.op_id

    def end(self, host, op_id):
        """Wait for an operation's end; returns its Report."""
        def look():
            report = self.api.get_operation(self.context, host, op_id)
            return report if report.state.finished else None
        return wait_for(look, f'the end of {op_id}')

    def done(self, name, host, **arguments):
        """Do an operation; returns its result."""
        report = self.end(host, self.begin(name, host, **arguments))
        self.assertEqual(OperationState.SUCCEEDED, report.state, f'{name}: {report.error}')
        return report.result

    def export_source(self):
        """The plan with the source's connection."""
        said = self.done('export_volume', self.source.host)['connection']
        self.plan = dataclasses.replace(self.plan, connection=facts.from_wire(vf.Connection, said))

    def locate(self, where):
        """What its agent says of a LUN."""
        self.epoch += 1
        return self.api.locate_volume(self.context, where.host, where, self.migration, self.epoch).lun

    def assert_at_target(self):
        """Given the data is whole at the target, when the source is removed, then there is one LUN without exports of the migration."""
        where = f'{self.target.host}@{self.target.backend}'
        self.assertEqual(DATA, self.arrays.content(where, 'slow', self.target.lun)[:len(DATA)])
        self.done('unexport_volume', self.source.host)
        self.done('delete_source_volume', self.source.host)
        self.assertEqual([(where, 'slow', self.target.lun, self.migration)], self.arrays.luns())
        self.assertEqual(LunState.ABSENT, self.locate(self.source).state)

    def test_conductors_know_all_backends(self):
        self.build()
        found = {b['name']: b for b in self.cloud.api.backends()}
        self.assertEqual(['one@a', 'one@b', 'two@c'], sorted(found))
        self.assertEqual((['gold'], ['two@c#fast', 'two@c#slow']), (found['two@c']['types'], [p['name'] for p in found['two@c']['pools']]))
        self.arrays.kill('one@b')
        wait_for(lambda: self.cloud.api.backend_show('one@b')['state'] == 'offline', 'the array offline')
        self.assertEqual('up', self.cloud.api.backend_show('one@a')['state'])
        self.arrays.start('one@b')
        self.cloud.wait_arrays('one')

    def test_a_take_over_with_a_guest_that_writes_meanwhile(self):
        self.build(take_over='async', migration_seconds=1.0)
        for target in (('two', 'c'), ('one', 'b')):
            self.volume(target=target)
            self.assertFalse(self.done('migrate_volume', 'one')['moved'])
            self.export_source()
            host = self.target.host
            taken = self.done('migrate_volume_target', host)
            self.assertEqual((True, True), (taken['moved'], taken['migration_async']))
            completing = self.begin('complete_migration_target', host)
            attachment = vf.VolumeAttachment(str(uuid.uuid4()), self.volume_id, self.target)
            uri = self.done('export_attachment', host, attachment=attachment)['connection']['uri']
            self.assertEqual(LunState.MIRRORING, self.locate(self.target).state)
            self.assertTrue(self.api.volume_progress(self.context, host, self.migration).active)
            self.arrays.write(uri, 0, 4096, 0xee)
            self.assertEqual(OperationState.SUCCEEDED, self.end(host, completing).state)
            self.assertEqual(b'\xee' + DATA[1:], self.arrays.read(uri)[:len(DATA)])
            self.arrays.write(uri, 0, 4096, DATA[0])
            self.done('unexport_attachment', host, attachment=attachment)
            self.assert_at_target()
            self.done('delete_volume', host, lun=self.target)

    def test_a_host_copy_that_outlives_its_agent(self):
        """Given a slow copy, when its agent is killed in the middle, then the next one goes on behind what was flushed."""
        self.build(take_over='no')
        self.volume()
        self.plan = dataclasses.replace(self.plan, force_host_copy=True, bandwidth=SIZE)
        self.export_source()
        self.done('create_target_volume', 'two')
        copying = self.begin('copy_volume', 'two')
        wait_for(lambda: self.api.volume_progress(self.context, 'two', self.migration).done, 'progress')
        self.cloud.volumes.restart('two')
        self.assertEqual(OperationState.INTERRUPTED, self.end('two', copying).state)
        self.plan = dataclasses.replace(self.plan, bandwidth=0)
        moved = self.done('copy_volume', 'two')['bytes']
        self.assertTrue(0 < moved < SIZE, moved)
        self.assertEqual('sampled', self.done('verify_volume', 'two')['how'])
        self.assert_at_target()
        self.assertEqual([], self.arrays.exports())

    def test_a_host_copy_that_is_undone_leaves_nothing(self):
        self.build(take_over='no')
        self.volume()
        self.plan = dataclasses.replace(self.plan, force_host_copy=True, bandwidth=1 << 20)
        self.export_source()
        self.done('create_target_volume', 'two')
        copying = self.begin('copy_volume', 'two')
        wait_for(lambda: self.api.volume_progress(self.context, 'two', self.migration).active, 'the copy')
        self.done('delete_target_volume', 'two')
        self.assertEqual('MigrationAborted', self.end('two', copying).error_type)
        self.done('unexport_volume', 'one')
        self.assertEqual([('one@a', 'fast', self.source.lun, self.migration)], self.arrays.luns())
        self.assertEqual([], self.arrays.exports())

    def test_an_agent_that_is_killed_in_a_completion_leaves_it_to_the_array(self):
        self.build(take_over='async', migration_seconds=1.0)
        self.volume()
        self.export_source()
        self.done('migrate_volume_target', 'two')
        completing = self.begin('complete_migration_target', 'two')
        self.cloud.volumes.restart('two')
        self.assertEqual(OperationState.INTERRUPTED, self.end('two', completing).state)
        self.done('complete_migration_target', 'two')
        self.assert_at_target()

    def test_what_an_agent_heard_before_a_newer_look_is_refused(self):
        self.build()
        self.volume()
        late = facts.Envelope(f'{self.migration}/migrate_volume/9', self.migration, self.epoch)
        self.epoch += 1
        self.locate(self.source)
        self.assertRaises(exceptions.StaleEpoch, self.api.migrate_volume, self.context, 'one', late, self.plan)
        self.assertEqual([], self.arrays.history(method='migrate_volume'))
