"""libvirtd, with the agent or without it, ends while a guest is moved with real hypervisors, and comes back."""
import os
import signal

from migrator.states import Status
from tests.faults.outage_case import FULL, OutageCase, on_postgresql, sampled
from tests.functional.libvirt_harness import emulator


@sampled(daily=False)
class TestLibvirtd(OutageCase):
    """libvirtd ends in mid-copy, in order or not, and is started again."""

    def restart(self, name, end):
        """End libvirtd of a host by the method `end` of the lab's host, and start it again."""
        host = self.lab.host(name)
        getattr(host, end)()
        host.start_libvirtd()
        host.wait_ready()

    def case(self, victim, end):
        """Restart one's libvirtd in mid-copy. victim: gives the host's name from (source, destination)."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            self.restart(victim(here, there), end)
            ended = self.cloud.ended(migration)
        self.assert_one_copy(ended, guest, here, there)
        back = here if ended['status'] == Status.COMPLETED else there
        self.assert_outcome(self.cloud.migrate(guest, back), guest, back, silence=60.0)

    def test_the_sources_restarts_gracefully(self):
        """Given the source's libvirtd is restarted as by an upgrade, there is one guest, and it can be moved."""
        self.case(lambda here, _there: here, 'stop_libvirtd')

    def test_the_destinations_restarts_gracefully(self):
        """Given the destination's libvirtd is restarted as by an upgrade, there is one guest, and it can be moved."""
        self.case(lambda _here, there: there, 'stop_libvirtd')

    def test_both_hosts_lose_agent_and_libvirtd_at_once(self):
        """Given that all daemons of both hosts are killed at once and only emulators run on, the guest is whole when they are back."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            for name in (here, there):
                self.cloud.daemons[name].kill()
                self.lab.host(name).kill_libvirtd()
            self.assertTrue(emulator(self.lab.host(here), guest.uuid), 'the guest runs on')
            for name in (there, here):
                self.restart(name, 'kill_libvirtd')
            self.cloud.restart_dead()
            ended = self.cloud.ended(migration)
        self.assert_one_copy(ended, guest, here, there)

    def test_the_source_loses_agent_and_libvirtd_at_the_hand_over(self):
        """Given that the source's daemons die while the guest is paused for the hand-over, there is one guest when they are back."""
        guest, here, there = self.standing()
        source, destination = self.lab.host(here), self.lab.host(there)
        with self.copying(guest, there) as migration:
            hung = destination.libvirtd_pid
            os.kill(hung, signal.SIGSTOP)
            source.virsh('migrate-setspeed', guest.uuid, '1024')
            self.wait_for(lambda: 'paused' in source.virsh('domstate', guest.uuid), 'the hand-over')
            self.cloud.daemons[here].kill()
            source.kill_libvirtd()
            os.kill(hung, signal.SIGCONT)
            source.start_libvirtd()
            source.wait_ready()
            self.cloud.restart(here)
            ended = self.cloud.ended(migration)
        self.assert_one_copy(ended, guest, here, there)


if FULL:
    TestLibvirtdOnPostgreSQL = on_postgresql(TestLibvirtd)
