"""A whole host is gone in mid-migration, with all of its processes and its network, and comes back later or is attested to be dead."""
from migrator.states import Status
from tests.faults.outage_case import FULL, OutageCase, on_postgresql, sampled


@sampled(daily=False)
class TestLostHosts(OutageCase):
    """The power is cut; the other host and the broker notice nothing but silence."""

    def return_of(self, name):
        """Bring a host up again, with its agent."""
        self.lab.host(name).boot()
        self.cloud.restart(name)

    def await_running(self, guest, name):
        """Wait until libvirt of a host says that it runs a guest."""
        host = self.lab.host(name)
        self.wait_for(lambda: host.virsh('domstate', guest.uuid, check=False).strip() == 'running', f'the guest runs at {name}', 60)

    def test_the_source_after_the_cut_over(self):
        """Given a source that is gone once the guest runs at the destination, the migration completes there with a debt for the source,
        which is paid before anything else when it is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=16) as migration:
            self.await_running(guest, there)
            self.lab.host(here).crash()
            ended = self.cloud.ended(migration)
        self.assertEqual((Status.COMPLETED, there), (ended['status'], self.api.instance_show(guest.uuid)['host']), ended)
        self.assert_owed(guest, here)
        guest.console.wait_ticks(2, 30)
        self.return_of(here)
        self.await_paid(guest)
        self.assert_outcome(self.api.show(migration['id']), guest, there, silence=60.0)

    def test_the_source_before_the_cut_over(self):
        """Given a source that is gone in mid-copy, nobody can know whether its guest runs, and the migration says so; when it is back, the
        guest is stopped there, with all that it had written."""
        guest = self.cloud.boot('alpha')
        with self.copying(guest, 'beta') as migration:
            self.lab.host('alpha').crash()
            stuck = self.await_status(migration, Status.NEEDS_OPERATOR)
            self.return_of('alpha')
            ended = self.cloud.ended(migration)
        self.assertIn('source: unreachable', stuck['reason'])
        self.assert_outcome(ended, guest, 'alpha', Status.FAILED, state='stopped')
        self.assertEqual(Status.COMPLETED, self.cloud.ended(self.api.instance_start(guest.uuid))['status'])

    def test_the_source_before_the_cut_over_for_good(self):
        """Given a source that is gone in mid-copy for good, when an operator attests that it is off, the migration fails, and the guest is
        said to be unknown there, with a debt; should the host come back after all, the guest is stopped, whole, and can be started."""
        guest = self.cloud.boot('alpha')
        with self.copying(guest, 'beta') as migration:
            self.lab.host('alpha').crash()
            self.await_status(migration, Status.NEEDS_OPERATOR)
            self.wait_for(lambda: self.api.host_show('alpha')['state'] == 'down', 'the host counts as down')
            self.api.recover(migration['id'], assert_dead='alpha')
            ended = self.cloud.ended(migration)
        self.assertEqual((Status.FAILED, 'unknown'), (ended['status'], self.api.instance_show(guest.uuid)['state']), ended)
        self.assert_owed(guest, 'alpha')
        self.return_of('alpha')
        self.await_paid(guest)
        self.assert_outcome(self.api.show(migration['id']), guest, 'alpha', Status.FAILED, state='stopped')
        self.assertEqual(Status.COMPLETED, self.cloud.ended(self.api.instance_start(guest.uuid))['status'])

    def test_the_destination_before_the_cut_over(self):
        """Given a destination that is gone in mid-copy, the guest goes on at the source, and its debt waits until it is back."""
        guest = self.cloud.boot('alpha', disks=[{'target': 'vda', 'size': 8 << 20, 'directory': str(self.lab.shared)}])
        with self.copying(guest, 'beta') as migration:
            self.lab.host('beta').crash()
            ended = self.cloud.ended(migration, 120)
        self.assertEqual((Status.FAILED, 'alpha'), (ended['status'], self.api.instance_show(guest.uuid)['host']), ended)
        self.assert_owed(guest, 'beta')
        guest.console.wait_ticks(2, 30)
        self.return_of('beta')
        self.await_paid(guest)
        self.assert_outcome(self.api.show(migration['id']), guest, 'alpha', Status.FAILED)


if FULL:
    TestLostHostsOnPostgreSQL = on_postgresql(TestLostHosts)
