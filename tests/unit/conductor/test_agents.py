"""How agents are asked: by kind, and in which order hosts are asked where a guest is."""
import types

import testtools

from migrator import exceptions
from migrator.conductor.agents import Agents, Place
from migrator.conductor.workflows.model import Role
from migrator.rpc import contract, facts
from migrator.rpc.compute import ComputeAPI
from migrator.rpc.facts import Location
from migrator.rpc.volume import VolumeAPI
from migrator.states import AgentKind, GuestState, OperationState, PauseReason

ROW = types.SimpleNamespace(kind='live_migration', source_host='alpha', destination_host='beta', instance_uuid='u', id='m', epoch=7)


class Moving:
    """Hosts between which a guest is handed over as soon as one of them has been asked."""

    def __init__(self):
        self.asked = []

    def locate_instance(self, _context, host, *_rest):
        """Answer as the host stands now."""
        self.asked.append(host)
        late = len(self.asked) > 1
        if host == 'alpha':
            return Location(GuestState.PAUSED, PauseReason.MIGRATION) if late else Location(GuestState.RUNNING, job_active=True)
        return Location(GuestState.RUNNING) if late else Location(GuestState.ABSENT)


class ObservedTest(testtools.TestCase):

    def test_the_destination_is_asked_when_the_source_has_answered(self):
        """Given a hand-over between the two questions, then no answer of the destination is older than that of the source."""
        hosts = Moving()
        event = Agents(hosts).observed(None, ROW).event
        self.assertEqual(['alpha', 'beta'], hosts.asked)
        self.assertEqual((True, GuestState.RUNNING), (event.source.job_active, event.destination.state))


class Clerk:
    """Agents of one kind that take every operation; where they were asked is noted."""

    def __init__(self):
        self.asked = []

    def export_volume(self, _context, host, envelope, plan):
        """Take it, and let it run."""
        self.asked.append((host, envelope.op_id, plan))
        return facts.Report(envelope.op_id, envelope.migration_id, host, state=OperationState.RUNNING)

    def get_operation(self, _context, host, op_id):
        """It has ended."""
        return facts.Report(op_id, op_id.partition('/')[0], host, state=OperationState.SUCCEEDED, result={'said_by': host})


class KindsTest(testtools.TestCase):

    op = 'c0ffee00-0000-4000-8000-000000000001/export_volume/1'
    place = Place('alpha', Role.SOURCE, AgentKind.VOLUME)

    def test_the_agent_of_the_kind_is_asked(self):
        """Given a host with agents of both kinds, when a volume's step is issued and asked for, then the volume's agent hears of it."""
        volume = Clerk()
        agents = Agents(object(), volume)
        envelope = facts.Envelope(self.op, self.op.partition('/')[0])
        self.assertIsNone(agents.begin(None, 'export_volume', self.place, envelope, {'plan': 'p'}))
        self.assertEqual([('alpha', self.op, 'p')], volume.asked)
        self.assertEqual({'said_by': 'alpha'}, agents.poll(None, self.op, self.place).result)

    def test_a_kind_that_cannot_be_reached(self):
        self.assertRaises(exceptions.NotPossible, Agents(object()).api, AgentKind.VOLUME)

    def test_each_client_has_every_method_of_its_contract(self):
        for client, table in ((ComputeAPI, contract.COMPUTE), (VolumeAPI, contract.VOLUME)):
            self.assertEqual([], [name for name in table if not callable(getattr(client, name, None))])
