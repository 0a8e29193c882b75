"""The client of volume agents: what it sends is what the contract names, what comes back are dataclasses."""
import testtools

from migrator import exceptions
from migrator.rpc import contract, errors, facts, traces, volume, wire
from migrator.rpc import volume_facts as vf
from migrator.states import OperationState
from tests.unit.rpc import support
from tests.unit.volume import samples


class VolumeAPITest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.api = volume.VolumeAPI(support.make_conf(), support.make_transport())
        self.calls = []
        self.answer = {}
        self.api._client.call = self.call

    def call(self, context, name, server=None, **arguments):
        """Stand in for the way to the agent."""
        wire.check_arguments(contract.VOLUME[name], arguments)
        self.calls.append((server, name, arguments))
        return self.answer

    def test_each_entry_of_the_contract_has_a_method_that_sends_its_arguments(self):
        report = facts.Report(f'{samples.MIGRATION}/copy_volume/1', samples.MIGRATION, 'alpha', state=OperationState.RUNNING)
        values = {'plan': samples.plan(), 'spec': samples.SPEC, 'lun': samples.SOURCE, 'attachment': samples.ATTACHED,
                  'migration_id': samples.MIGRATION, 'epoch': 3, 'op_id': report.op_id, 'marker': '', 'bytes_per_second': 5, 'size': 1024,
                  'envelope': samples.envelope('copy_volume')}
        answers = {'check_can_migrate_volume_target': vf.VolumeTargetFacts('qsd'), 'locate_volume': vf.VolumeLocation(samples.LUN),
                   'check_can_migrate_volume_source': vf.VolumeSourceFacts('qsd'), 'audit': traces.Part(),
                   'volume_progress': vf.Progress(True, 8), 'cancel_volume_job': True, 'set_copy_rate': True}
        for name, entry in contract.VOLUME.items():
            expected = answers.get(name, report)
            self.answer = facts.to_wire(expected)
            arguments = {argument: values[argument] for argument in entry.arguments}
            self.assertEqual(expected, getattr(self.api, name)(support.new_context(), 'alpha', **arguments), name)
            self.assertEqual(('alpha', name, facts.to_wire(arguments)), self.calls[-1])

    def test_an_answer_that_cannot_be_read_is_the_agents_fault(self):
        self.answer = {'lun': 5}
        self.assertRaises(exceptions.AgentError, self.api.locate_volume, support.new_context(), 'alpha', samples.SOURCE,
                          samples.MIGRATION, 1)


class PinnedTest(testtools.TestCase):

    def test_a_pinned_version_is_not_exceeded(self):
        for options, lowest in (({'upgrade_levels__volume': '0.9'}, str), ({}, lambda: '0.9')):
            api = volume.VolumeAPI(support.make_conf(**options), support.make_transport(), lowest)
            self.assertRaises(errors.UnsupportedVersion, api.get_operation, support.new_context(), 'alpha', 'x')
