"""A whole host is gone in mid-migration, with all of its processes and its network, and comes back later."""
from migrator.states import Status
from tests.faults.outage_case import OutageCase, sampled


@sampled(1)
class TestLostHosts(OutageCase):
    """The power is cut; the other host and the broker notice nothing but silence."""

    def return_of(self, name):
        """Bring a host up again, with its agent."""
        self.lab.host(name).boot()
        self.cloud.restart(name)

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
        self.wait_for(lambda: not self.api.instance_show(guest.uuid)['debts'], 'the debt is paid')
        self.assert_outcome(self.api.show(migration['id']), guest, 'alpha', Status.FAILED)
