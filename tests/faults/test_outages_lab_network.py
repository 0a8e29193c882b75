"""The network between hosts, and between hosts and the broker, fails while a guest is moved with real hypervisors."""
import contextlib
import signal
import time

from migrator.states import TERMINAL, Status
from tests.cloud import SMALL_DISK
from tests.faults.outage_case import FULL, LOST_AFTER, OutageCase, on_postgresql, sampled
from tests.lab import processes


@sampled(daily=True)
class TestNetwork(OutageCase):
    """What was sent is lost, without a word to either side."""

    def part(self, here, there):
        """Part two hosts from each other; both still reach the broker."""
        self.lab.host(here).cut_from(self.lab.host(there))
        self.lab.host(there).cut_from(self.lab.host(here))

    def heal(self):
        """Mend the whole network."""
        for host in self.cloud.hosts.values():
            host.heal()

    def test_the_sources_agent_loses_the_broker_for_a_while(self):
        """Given an agent that is cut off in mid-copy for longer than a host may be silent, the migration needs an operator, says so, and
        completes by itself when the agent is heard again, for libvirt's job never stopped."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=1) as migration:
            self.lab.host(here).cut_from_services()
            stuck = self.await_status(migration, Status.NEEDS_OPERATOR)
            self.heal()
            self.lab.host(here).virsh('migrate-setspeed', guest.uuid, '100')
            ended = self.cloud.ended(migration)
        self.assertIn('source: unreachable', stuck['reason'])
        self.assert_outcome(ended, guest, there)

    def test_the_sources_agent_loses_the_broker_until_the_guest_has_moved(self):
        """Given a source that is not heard of until after the guest has moved, the migration completes with a debt, which is paid when it
        is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=8) as migration:
            self.lab.host(here).cut_from_services()
            ended = self.cloud.ended(migration)
        self.assertEqual((Status.COMPLETED, there), (ended['status'], self.api.instance_show(guest.uuid)['host']), ended)
        self.assert_owed(guest, here)
        self.heal()
        self.await_paid(guest)
        self.assert_outcome(self.api.show(migration['id']), guest, there)

    def test_the_destinations_agent_loses_the_broker_until_the_guest_has_moved(self):
        """Given a destination that cannot say whether the guest is there, nothing is concluded from its silence, and the migration
        completes when it is heard again."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=8) as migration:
            self.lab.host(there).cut_from_services()
            stuck = self.await_status(migration, Status.NEEDS_OPERATOR)
            self.assertEqual({there: 'running'}, self.cloud.where(guest))
            self.heal()
            ended = self.cloud.ended(migration)
        self.assertIn('destination: unreachable', stuck['reason'])
        self.assert_outcome(ended, guest, there)

    def test_the_hosts_lose_each_other_for_a_while(self):
        """Given a stream that stands still for longer than the conductor's time-outs, it goes on when the network is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=8) as migration:
            self.part(here, there)
            self.wait_silence(LOST_AFTER + 2)
            self.heal()
            ended = self.cloud.ended(migration)
        self.assert_one_copy(ended, guest, here, there)

    def test_the_hosts_lose_each_other(self):
        """Given a stream that stands still for good, libvirt gives it up, and the migration is undone; later it can be made."""
        guest = self.cloud.boot('alpha', disks=[{'target': 'vda', 'size': SMALL_DISK, 'directory': str(self.lab.shared)}])
        with self.copying(guest, 'beta') as migration:
            self.part('alpha', 'beta')
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, 'alpha', Status.FAILED)
        self.heal()
        self.assert_outcome(self.cloud.migrate(guest, 'beta'), guest, 'beta')

    def test_the_hosts_lose_each_other_while_a_disk_is_mirrored(self):
        """Given a mirrored disk whose connection is dead for good, and TCP that gives it up before libvirt does (QEMU would hold the guest
        from then on), all is undone, and the guest goes on at the source, before the hosts find each other again."""
        guest, here, there = self.standing()
        host = self.lab.host(here)
        with self.tcp_gives_up_soon(host), self.copying(guest, there) as migration:
            self.part(here, there)
            ended = self.cloud.ended(migration, 150)
            self.assertEqual(Status.FAILED, ended['status'], ended)
            guest.console.wait_ticks(10, 30)
            self.assertEqual('running', self.cloud.where(guest)[here])
            self.heal()
        self.assert_outcome(ended, guest, here, Status.FAILED, silence=60.0)
        self.assert_outcome(self.cloud.migrate(guest, there), guest, there, silence=60.0)

    @contextlib.contextmanager
    def tcp_gives_up_soon(self, host):
        """Let TCP at a host give up what is not answered after some 13 s for a with block, as the operator's guide says."""
        name = 'net.ipv4.tcp_retries2'
        before = host.run(['sysctl', '-n', name]).stdout.strip()
        host.run(['sysctl', '-q', '-w', f'{name}=5'])
        try:
            yield
        finally:
            host.run(['sysctl', '-q', '-w', f'{name}={before}'])

    def test_the_hosts_lose_each_other_at_the_hand_over(self):
        """Given a destination whose word that the guest runs there is lost for good, there are not two of it."""
        guest, here, there = self.standing()
        source, destination = self.lab.host(here), self.lab.host(there)
        with self.copying(guest, there) as migration:
            hung = destination.libvirtd_pid
            processes.send(hung, signal.SIGSTOP)
            source.virsh('migrate-setspeed', guest.uuid, '1024')
            self.wait_for(lambda: 'paused' in source.virsh('domstate', guest.uuid), 'the hand-over', 40)
            time.sleep(1)       # the source has asked the destination to finish; that this is on its way cannot be seen
            self.part(here, there)
            processes.send(hung, signal.SIGCONT)
            self.wait_for(lambda: self.cloud.where(guest).get(there) == 'running', 'the destination runs it', 20)
            twice = self.watch_for_two(guest, migration)
            ended = self.cloud.ended(migration)
        self.heal()
        self.assertLess(twice, 1.0, 'seconds for which libvirt had it running at both hosts')
        self.assert_outcome(ended, guest, there, silence=60.0)
        self.assertIn('held', str(ended['events']))

    def watch_for_two(self, guest, migration):
        """Give the seconds for which libvirt says that the guest runs at both hosts, until the migration has ended."""
        twice, before = 0.0, time.monotonic()
        while self.api.show(migration['id'])['status'] not in TERMINAL and time.monotonic() - before < 90:
            both, looked = list(self.cloud.where(guest).values()) == ['running', 'running'], time.monotonic()
            time.sleep(0.05)
            twice += time.monotonic() - looked if both else 0.0
        return twice

    def wait_silence(self, seconds):
        """Let time pass in which nothing is to happen."""
        time.sleep(seconds)


if FULL:
    TestNetworkOnPostgreSQL = on_postgresql(TestNetwork)
