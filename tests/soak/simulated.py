"""The soak's cloud with simulated hypervisors: an agent process for each host, conductors, a real broker and a real database."""
import collections
import contextlib
import random
import shutil
import uuid

import fixtures

from migrator import exceptions
from migrator.states import GuestState
from tests import services
from tests.cluster import Cluster
from tests.lab import wait_until
from tests.soak import plan, rules, servers, watch

GUESTS_PER_HOST = 5
#: Slower beats than other tests have: 24 agents share a machine with everything else.
OPTIONS = {
    'DEFAULT': {'debug': False},
    'conductor': {'claim_seconds': 3.0, 'sweep_interval': 0.5, 'retry_interval': 0.5, 'observe_interval': 1.0, 'poll_interval': 4.0,
                  'host_down_after': 20.0, 'host_lost_after': 30.0},
    'compute': {'heartbeat_interval': 2.0, 'report_interval': 1.0},
    'fake': {'migration_seconds': 5.0}}


class SimulatedStage(fixtures.Fixture):
    """`hosts` simulated hosts with guests that have a disk each, half of them shared. database: mysql or postgresql."""

    kinds = plan.SIMULATED
    #: Calm seconds for which a migration may stand still, and seconds that all have to end in once nothing disturbs them.
    bound, settle = 60.0, 180.0
    settling = rules.settling(OPTIONS['conductor'])
    options = None

    def __init__(self, hosts, database, seed):
        super().__init__()
        self.hosts = [f'host-{number:02}' for number in range(hosts)]
        self._database, self._seed = database, seed
        self.conductors = ['conductor-0', 'conductor-1']
        self.actions = {'driver failure': self._driver_failure}
        self.saboteur = None

    def _setUp(self):
        broker = services.start_rabbitmq()
        self.addCleanup(broker.stop)
        self.broker = servers.Broker(broker.pid)
        server = services.shared('mariadb' if self._database == 'mysql' else 'postgresql')
        self.database_server = servers.Database(server.pid, self._database)
        self.addCleanup(self.database_server.end)
        url = self.useFixture(services.Database(self._database)).url
        self.cluster = self.useFixture(Cluster(broker.url(), url, self.hosts, conductors=len(self.conductors), options=OPTIONS))
        self.api, self.world, self.database = self.cluster.api, self.cluster.world, self.cluster.database
        self.daemons, self.agents = self.cluster.daemons, self.hosts
        self.guests = self._populate()

    def _populate(self):
        rng, directory = random.Random(f'{self._seed}/guests'), str(self.cluster.folder / 'instances')
        specs = []
        for number in range(len(self.hosts) * GUESTS_PER_HOST):
            identity = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            specs.append({'host': self.hosts[number % len(self.hosts)], 'uuid': identity, 'name': f'guest-{number:03}', 'memory_mib': 128,
                          'disks': [self.world.disk(identity, directory, size=64 << 20)]})
        self.world.add_guests(specs)
        wanted = {spec['uuid'] for spec in specs}
        wait_until(lambda: wanted <= {guest['uuid'] for guest in self.api.instances()}, 60, 'the guests in the catalogue', interval=0.5)
        return sorted(wanted)

    # --- trouble ---

    def restart(self, name):
        """Start a daemon again and wait until it is ready, however busy the machine."""
        self.daemons[name].start()
        self.daemons[name].wait_for('is ready', 120)

    def await_servers(self):
        """Wait until broker and database answer."""
        def answers():
            with contextlib.suppress(exceptions.MigratorError):
                self.database.run(lambda tx: tx.exec_driver_sql('SELECT 1').scalar())
                return self.api.hosts()
            return None
        wait_until(answers, 120, 'an answer of broker, database and a conductor', interval=0.3)

    def _driver_failure(self, fault):
        method, action = fault.detail.split()
        self.world.inject('*', method, action)

    def unmet(self):
        """Take back the driver failures that no call has met yet; returns their number."""
        with self.world.store.read() as db:
            left = db.execute('SELECT count(*) FROM fault WHERE times != 0').fetchone()[0]
        self.world.release()
        return left

    # --- looking ---

    def look(self):
        """Find what must never be, now. Raises Unavailable while the database is away."""
        orphaned = self.database.run(watch.orphaned_locks)
        before = self.database.run(watch.catalogue)
        where = self._running()
        after = self.database.run(watch.catalogue)
        return self.world.check() + orphaned + rules.catalogue(before, after, where) + self._executed()

    def _executed(self):
        return rules.executed_once(job['migration'] for job in self.world.jobs())

    def _running(self):
        self.world.check()      # lets every job that is due take its effect first
        found = collections.defaultdict(set)
        with self.world.store.read() as db:
            for row in db.execute('SELECT uuid, host FROM guest WHERE state = ?', (GuestState.RUNNING.value,)):
                found[row['uuid']].add(row['host'])
        return {guest: found[guest] for guest in self.guests}

    def remains(self):
        """Find what is not as it must be when all has ended and settled."""
        found = self.look() + self.database.run(watch.remains)
        for guest in self.guests:
            view, where = self.api.instance_show(guest), self.world.where(guest)
            if where != {view['host']: GuestState.RUNNING} or view['state'] != 'running':
                found.append(f'{guest} is {view["state"]} at {view["host"]} by the catalogue, {where} by the hosts')
            found += [f'{guest} has left a {what}' for what in self.world.leftovers(guest)]
        folder = self.cluster.folder
        return found + rules.journals([row for host in self.hosts for row in watch.journal(folder / f'{host}-journal.db', host)])

    def keep(self, folder):
        """Copy logs, journals and the world into `folder`."""
        shutil.copytree(self.cluster.folder, folder, ignore=shutil.ignore_patterns('records', 'locks'), dirs_exist_ok=True)
