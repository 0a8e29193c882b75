"""The same daemons and servers with simulated hypervisors: enough to count what the control plane does, without root and libvirt."""
import fixtures

from tests import services
from tests.bench.watch import OPTIONS, Watch, orchestrate
from tests.cluster import Cluster


class SimulatedStage(fixtures.Fixture):
    """Two simulated hosts with one guest. database: sqlite, mysql or postgresql."""

    def __init__(self, database):
        super().__init__()
        self._database = database

    def _setUp(self):
        broker = services.start_rabbitmq()
        self.addCleanup(broker.stop)
        self.broker_pid, self.transport_url = broker.pid, broker.url()
        self.database_url = self.useFixture(services.Database(self._database)).url
        self.cluster = self.useFixture(Cluster(self.transport_url, self.database_url, options=OPTIONS))
        self.api = self.cluster.api
        self.watch = Watch(self.database_url)
        self.addCleanup(self.watch.close)
        self.at, self.other = self.cluster.hosts
        self.instance = self.cluster.create(self.at)
        self.cluster.wait_for(lambda: self.watch.instance(self.instance).disks, 'the disks of the guest in the catalogue')

    def daemon_pids(self):
        """Process ids of migrator's daemons, by name."""
        return {name: daemon.pid for name, daemon in self.cluster.daemons.items()}

    def orchestrated(self):
        """Have migrator move the guest to the other host; returns a Moved."""
        moved = orchestrate(self.api, self.watch, self.instance, self.other)
        self.at, self.other = self.other, self.at
        return moved
