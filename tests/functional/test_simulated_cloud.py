"""Whole migrations of simulated hosts with each kind of database: two conductors, success, abort, a crowd, and a death."""
import testscenarios

from tests import base, services
from tests.simulated import Cloud


class SimulatedCloudTest(testscenarios.WithScenarios, base.TestCase):

    timeout = 240
    scenarios = [(kind, {'kind': kind}) for kind in ('sqlite', 'mysql', 'postgresql')]

    def setUp(self):
        super().setUp()
        url = self.useFixture(services.Database(self.kind)).url
        self.cloud = self.useFixture(Cloud(conductors=2, database=url, conductor__max_migrations_per_host=3))
        self.api = self.cloud.api

    def test_there_and_back(self):
        guest = self.cloud.create('web', 'alpha')
        for host in ('beta', 'alpha'):
            self.cloud.migrate('web', host)
            self.cloud.assert_clean(guest, host)

    def test_abort_while_it_copies(self):
        guest = self.cloud.create('web', 'alpha', memory_mib=256, cmdline='dirty_mib=4096')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(guest)
        self.api.abort(moving['id'])
        self.cloud.wait(moving, 'cancelled')
        self.cloud.assert_clean(guest, 'alpha')

    def test_a_crowd_in_both_directions_while_a_conductor_dies(self):
        homes = [('alpha', 'beta'), ('beta', 'alpha')] * 4
        guests = [self.cloud.create(f'web-{n}', here) for n, (here, _) in enumerate(homes)]
        moving = [self.api.live_migrate(guest, there) for guest, (_, there) in zip(guests, homes, strict=True)]
        self.cloud.kill_conductor()
        for migration in moving:
            self.cloud.wait(migration, 'completed', timeout=60)
        for guest, (_, there) in zip(guests, homes, strict=True):
            self.cloud.assert_clean(guest, there)
