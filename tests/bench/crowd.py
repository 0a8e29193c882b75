"""Many simulated migrations that are in flight at the same conductor: one more process with simulated agents and their guests.

`python -m tests.bench.crowd CONFIG HOSTS GUESTS` runs the agents; `Crowd` starts that process and has every guest migrated.
"""
import concurrent.futures
import os
import signal
import sys
import threading
import uuid

import fixtures
import sqlalchemy as sa
from oslo_config import cfg

from migrator.conductor.db import tables
from migrator.states import Status
from tests.lab import processes
from tests.lab.services import ROOT

WORLD = 'memory:crowd'
#: How many requests for migrations are under way at once.
CALLERS = 4


def name_of(number):
    """Name a simulated host."""
    return f'crowd-{number:02}'


class Crowd(fixtures.Fixture):
    """`guests` migrations between `hosts` simulated hosts, all running while the fixture is in use.

    api: ConductorAPI. database: migrator.conductor.db.database.Database. transport_url: of the daemons. folder: for configuration, log
    and journals.
    """

    def __init__(self, api, database, transport_url, folder, hosts=10, guests=500):
        super().__init__()
        self._api, self._database, self._url, self._folder = api, database, transport_url, folder
        self._hosts, self.guests = hosts, guests

    def _setUp(self):
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / 'crowd.conf'
        path.write_text('\n'.join([
            '[DEFAULT]', f'transport_url = {self._url}', f'state_path = {self._folder}', '[compute]', 'driver = fake',
            'heartbeat_interval = 5', f'max_operations = {self.guests}', f'instances_path = {self._folder}/instances',
            '[fake]', f'world = {WORLD}', 'migration_seconds = 600', 'memory_mib = 1048576', '']))
        argv = [sys.executable, '-m', 'tests.bench.crowd', path, self._hosts, self.guests]
        daemon = processes.Daemon('crowd', argv, self._folder / 'crowd.log', self._folder,
                                  env={'PYTHONPATH': str(ROOT), 'MIGRATOR_CONCURRENCY': 'threading'})
        daemon.start()
        self.addCleanup(daemon.kill)
        daemon.wait_for('the crowd is there', 120)
        instances = processes.wait_until(self._known, 120, 'the guests of the crowd in the catalogue', interval=0.5)
        with concurrent.futures.ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(self._migrate, instances))
        self.wait_running()

    def _known(self):
        query = sa.select(tables.instance.c.uuid, tables.instance.c.host).where(tables.instance.c.host.like('crowd-%'))
        rows = self._database.run(lambda tx: tx.execute(query).all())
        return rows if len(rows) == self.guests else None

    def _migrate(self, instance):
        number = int(instance.host.rpartition('-')[2])
        self._api.live_migrate(instance.uuid, name_of((number + 1) % self._hosts))

    def running(self):
        """Count the migrations of the crowd that run now."""
        query = sa.select(sa.func.count()).where(tables.migration.c.source_host.like('crowd-%'),
                                                 tables.migration.c.status == Status.RUNNING.value)
        return self._database.run(lambda tx: tx.execute(query).scalar())

    def wait_running(self):
        """Wait until all run."""
        processes.wait_until(lambda: self.running() == self.guests, 300, f'{self.guests} running migrations', interval=1.0)


def main(path, hosts, guests):
    """Run the agents until SIGTERM."""
    from migrator import concurrency
    concurrency.setup()

    from migrator import config
    from migrator.compute.drivers.fake.world import World
    from migrator.compute.service import ComputeService
    from migrator.rpc import transport

    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    config.setup(['--config-file', path], 'migrator-compute')
    way = transport.get_transport(cfg.CONF)
    for number in range(int(hosts)):
        conf = config.register(cfg.ConfigOpts())
        conf([], project='migrator', default_config_files=[path])
        conf.set_override('host', name_of(number))
        ComputeService(conf, way).start()
    World(WORLD).add_guests([{'host': name_of(number % int(hosts)), 'uuid': str(uuid.uuid4()), 'memory_mib': 64}
                             for number in range(int(guests))])
    print('the crowd is there', flush=True)
    over.wait()
    os._exit(0)  # hundreds of threads wait for the ends of jobs


if __name__ == '__main__':
    main(*sys.argv[1:])
