"""How agents are asked: the order in which hosts are asked where a guest is."""
import types

import testtools

from migrator.conductor.agents import Agents
from migrator.rpc.facts import Location
from migrator.states import GuestState, PauseReason

ROW = types.SimpleNamespace(source_host='alpha', destination_host='beta', instance_uuid='u', id='m', epoch=7)


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
