"""The demonstration without root, libvirt or broker: conductor and agents in this process, simulated hosts, SQLite, messages in memory."""
import contextlib
import logging
import pathlib
import uuid

from oslo_config import cfg
from oslo_db import options as db_options

from migrator import config
from migrator.compute.drivers.fake.driver import FakeDriver
from migrator.compute.drivers.fake.world import World
from migrator.compute.service import ComputeService
from migrator.conductor.db import schema
from migrator.conductor.db.database import Database
from migrator.conductor.service import ConductorService
from migrator.rpc import conductor, transport
from tests.demo.story import Finding, Stage, wait_until

HOSTS = ('alpha', 'beta')
#: The guest's disk and memory in MiB, what it dirties and what the simulated network carries in MiB a second: about a second a move.
DISK, MEMORY, DIRTY, BANDWIDTH = 128, 256, 48, 600
STAMP = 'written before the first move'


class Simulated(Stage):
    """Two simulated hosts. Use as a context manager; `folder` must exist and receives database, journals and log."""

    hosts = HOSTS
    patience = 30.0
    interval = 0.05

    def __init__(self, folder):
        """folder: an empty directory."""
        self.folder = pathlib.Path(folder)
        self.uuid = str(uuid.uuid4())
        self.world = World(f'memory:{self.folder}')
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._stack.close()
        # Else the process ends at once. An orderly end would wait for answers of services that were stopped before.

    def _start(self, stack):
        self._log_to_file(stack)
        conf = self._conf('conductor', cfg.CONF)
        messages = transport.get_transport(conf, 'fake://')
        database = Database(conf.database.connection)
        stack.callback(self.world.forget)
        schema.upgrade(database)
        services = [ConductorService(conf, messages, database)]
        for host in HOSTS:
            host_conf = self._conf(host, cfg.ConfigOpts())
            services.append(ComputeService(host_conf, messages, FakeDriver(host_conf, host)))
        for service in services:
            service.start()
            stack.callback(service.stop)
        self.api = conductor.ConductorAPI(conf, messages, user='demo')
        wait_until(lambda: self.hosts_up() == set(HOSTS), self.patience, 'heartbeats of the hosts')

    def _log_to_file(self, stack):
        handler = logging.FileHandler(self.folder / 'demo.log')
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(name)s %(message)s'))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        stack.callback(root.removeHandler, handler)

    def _conf(self, host, conf):
        """Configure one service as its configuration file would."""
        conf.clear()
        db_options.set_defaults(conf)
        config.register(conf)
        conf([], project='migrator', default_config_files=[], default_config_dirs=[])
        for name, value, group in (
                ('host', host, None), ('state_path', str(self.folder), None),
                ('connection', f'sqlite:///{self.folder}/migrator.sqlite', 'database'),
                ('driver', 'fake', 'compute'), ('instances_path', '/instances', 'compute'), ('heartbeat_interval', 0.1, 'compute'),
                ('progress_interval', 0.05, 'compute'), ('world', self.world.name, 'fake'), ('bandwidth_mib', BANDWIDTH, 'fake'),
                ('migration_seconds', 0.0, 'fake')):
            conf.set_override(name, value, group)
        return conf

    # --- the guest ---

    def spec(self):
        """See Stage."""
        return {'uuid': self.uuid, 'name': 'demo', 'memory_mib': MEMORY, 'cmdline': f'dirty_mib={DIRTY}',
                'disks': [{'target': 'vda', 'size': DISK << 20}]}

    def guest_words(self):
        """See Stage."""
        where = ', '.join(f'{state} on {host}' for host, state in self.world.where(self.uuid).items())
        return f'write {self.guest_count()}; {where}'

    def guest_count(self):
        """See Stage."""
        return self.world.writes(self.uuid)

    def wait_alive(self):
        """See Stage."""
        count = self.guest_count()
        wait_until(lambda: self.guest_count() > count, self.patience, 'writes of the guest')

    def before_move(self):
        """See Stage. The first time, the disk gets a content that can be recognized."""
        (host,) = self.world.where(self.uuid)
        if not any(file['stamp'] for file in self.world.files(self.uuid)):
            self.world.stamp(host, self.uuid, STAMP)
        return self.guest_count()

    def after_move(self, before, view):
        """See Stage."""
        return [('writes meanwhile', str(self.guest_count() - before))]

    def inspect(self):
        """See Stage: what the simulated hypervisors and their disks say."""
        where = self.world.where(self.uuid)
        yield Finding(where == {HOSTS[0]: 'running'},
                      'one copy of the guest exists: ' + ', '.join(f'{state} on {host}' for host, state in where.items()))
        files = self.world.files(self.uuid)
        yield Finding([file['stamp'] for file in files] == [STAMP], f'one disk file exists and reads back what was {STAMP}')
        leftovers = self.world.leftovers(self.uuid)
        yield Finding(not leftovers, f'nothing is left on {HOSTS[1]}: ' + ('; '.join(leftovers) or 'no domain, no file, no job'))
        follow_stop = self.api.instance_stop(self.uuid)
        wait_until(lambda: self.api.show(follow_stop['id'])['finished_at'], self.patience, 'the stop of the guest')
        wrong, count = self.world.check(), self.world.writes(self.uuid)
        held = min((file['content'] for file in self.world.files(self.uuid, HOSTS[0])), default=0)
        yield Finding(held == count > 0, f'stopped, its disk holds {held} of {count} writes')
        yield Finding(not wrong, 'at no time did two copies run, and nothing was lost' if not wrong else '; '.join(wrong))
