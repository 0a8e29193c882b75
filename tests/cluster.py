"""A small cloud of real daemons with simulated hypervisors: processes, a real broker and a real database, on loopback.

Each daemon is a process of its own with its own configuration file, journal and log, so that it can be killed and started again. The
simulated world is a file that outlives all of them, as real guests outlive agents.
"""
import contextlib
import os
import pathlib
import signal
import sys
import uuid

import fixtures
import sqlalchemy as sa
from oslo_config import cfg

from migrator import config
from migrator.compute.drivers.fake.world import World
from migrator.conductor.db import schema, tables
from migrator.conductor.db.database import Database
from migrator.rpc import transport
from migrator.rpc.conductor import ConductorAPI
from migrator.states import TERMINAL, GuestState
from migrator.volume.drivers.fake.world import Arrays
from tests.lab.errors import LabError
from tests.lab.processes import Daemon, wait_until

#: Short times, so that recovery is seen in seconds. What they are in a real cloud is in migrator/config.py.
CONDUCTOR = {'claim_seconds': 1.0, 'sweep_interval': 0.2, 'retry_interval': 0.2, 'observe_interval': 0.2, 'poll_interval': 1.5,
             'host_down_after': 6.0, 'host_lost_after': 20.0}
COMPUTE = {'heartbeat_interval': 0.3, 'report_interval': 0.3, 'driver': 'fake'}
VOLUME = {'heartbeat_interval': 0.3, 'report_interval': 0.3}
ARRAY = {'migration_seconds': 0.4, 'capacity_mib': 1024}


class Cluster(fixtures.Fixture):
    """Daemons on one broker and one database. `arm` runs them so that they can be told where to die (tests/faults/points.py)."""

    def __init__(self, transport_url, database_url, hosts=('one', 'two'), conductors=1, arm=False, options=None, arrays=None, runner=''):
        """options: {section: {option: value}} for all daemons, over the short times. arrays: {host: {backend: options}} of volume agents
        with simulated arrays, whose hosts have other names than the hypervisors'. runner: a module that runs daemons in another way, such
        as tests.faults.messages."""
        super().__init__()
        self.volume_hosts = arrays or {}
        self.transport_url, self.database_url = transport_url, database_url
        self.hosts, self.conductors, self.options = hosts, conductors, options or {}
        self.runner = 'tests.faults.points' if arm else runner
        self.daemons = {}

    def _setUp(self):
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.kill_file = self.folder / 'kill'
        self.messages_file = self.folder / 'messages'
        self.world = World(str(self.folder / 'world.db'))
        self.arrays = Arrays(str(self.folder / 'arrays.db'))
        self.database = Database(self.database_url)
        self.addCleanup(self.database.dispose)
        schema.upgrade(self.database)
        self.addCleanup(self._end)
        for host in self.hosts:
            self.add('compute', host)
        for host in self.volume_hosts:
            self.add('volume', host)
        for number in range(self.conductors):
            self.add('conductor', f'conductor-{number}')
        for daemon in self.daemons.values():
            daemon.start()
        for daemon in self.daemons.values():
            daemon.wait_for('is ready', 30)
        conf = config.register(cfg.ConfigOpts())
        conf([], project='migrator', default_config_files=[], default_config_dirs=[])
        self.api = ConductorAPI(conf, transport.get_transport(conf, self.transport_url), 'tester')
        self.addCleanup(self.api.close)
        self.wait_for(lambda: set(self.hosts) <= {h['name'] for h in self.api.hosts() if h['state'] == 'up'}, 'all hosts up')
        wanted = {f'{host}@{backend}' for host, backends in self.volume_hosts.items() for backend in backends}
        if wanted:
            self.wait_for(lambda: wanted <= {b['name'] for b in self.api.backends() if b['state'] == 'up'}, 'all arrays up')

    def _end(self):
        for daemon in self.daemons.values():
            if daemon.running():
                daemon.kill()

    def add(self, kind, name):
        """Describe a daemon; it is not started."""
        argv = ['-m', self.runner, kind] if self.runner else ['-m', f'migrator.cmd.{kind}']
        path = self.folder / f'{name}.conf'
        path.write_text(self._configuration(kind, name))
        self.daemons[name] = Daemon(name, [sys.executable, *argv, '--config-file', path], self.folder / f'{name}.log',
                                    self.folder / 'records', env={'MIGRATOR_KILL_FILE': str(self.kill_file), 'MIGRATOR_NAME': name,
                                                                  'MIGRATOR_MESSAGES_FILE': str(self.messages_file)})
        return self.daemons[name]

    def _configuration(self, kind, name):
        sections = {
            'DEFAULT': {'host': name, 'state_path': self.folder, 'transport_url': self.transport_url, 'debug': True},
            'database': {'connection': self.database_url}, 'conductor': dict(CONDUCTOR),
            'compute': dict(COMPUTE, instances_path=self.folder / 'instances'),
            'fake': {'world': self.folder / 'world.db', 'migration_seconds': 0.4},
            'oslo_concurrency': {'lock_path': self.folder / 'locks'}}
        backends = self.volume_hosts.get(name, {}) if kind == 'volume' else {}
        if backends:
            sections['volume'] = dict(VOLUME, enabled_backends=','.join(backends))
        for backend, values in backends.items():
            sections[backend] = {'driver': 'fake', 'pools': 'fast:-,slow:-', 'world': self.folder / 'arrays.db', **ARRAY, **values}
        for section, values in self.options.items():
            sections.setdefault(section, {}).update(values)
        lines = []
        for section, values in sections.items():
            lines += [f'[{section}]', *(f'{k} = {v}' for k, v in values.items())]
        return '\n'.join(lines) + '\n'

    # --- doing ---

    def kill_at(self, point, key, name, number=signal.SIGKILL):
        """Have the daemon of that name send itself this signal when it comes to this point."""
        temporary = self.folder / 'kill.new'
        temporary.write_text(f'{point} {key} {name} {int(number)}')
        os.replace(temporary, self.kill_file)

    def await_death(self, timeout=30):
        """Wait until a daemon has died; returns it. Fails if all are alive after `timeout` seconds."""
        def dead():
            return next((d for d in self.daemons.values() if d.process is not None and not d.running()), None)
        return wait_until(dead, timeout, f'death at {self.kill_file.read_text() if self.kill_file.exists() else "the point"}')

    def restart(self, daemon):
        """Start a dead daemon again and wait until it is ready."""
        daemon.start()
        daemon.wait_for('is ready', 30)

    def create(self, host, **spec):
        """Have a guest running on `host`; returns its uuid."""
        name = spec.pop('name', f'guest-{uuid.uuid4().hex[:8]}')
        wanted = {'uuid': str(uuid.uuid4()), 'name': name, 'memory_mib': 64, 'disks': [{'target': 'vda', 'size': 1 << 20}], **spec}
        ended = self.ended(self.api.instance_create(host, wanted))
        if ended['status'] != 'completed':
            raise AssertionError(f'instance_create: {ended}')
        return wanted['uuid']

    def ended(self, migration, timeout=40):
        """Wait for a migration's end; returns it as `show` does."""
        def look():
            view = self.api.show(migration['id'])
            return view if view['status'] in TERMINAL else None
        try:
            return wait_until(look, timeout, f'end of migration {migration["id"]}', interval=0.05)
        except Exception as error:
            raise AssertionError(f'{error}: {self.api.show(migration["id"])}') from error

    @staticmethod
    def wait_for(condition, what, timeout=30):
        """Wait until `condition` gives something true; returns it."""
        return wait_until(condition, timeout, what, interval=0.05)

    # --- looking ---

    def rows(self, table):
        """Everything in a table."""
        return self.database.run(lambda tx: tx.execute(sa.select(table)).all())

    def audited(self, timeout=20):
        """Give what the audit finds, is owed and has not answered; [] once that is nothing, for reports may be under way for a moment."""
        def left():
            said = self.api.audit()
            return said['findings'] + said['debts'] + said['not_audited']
        return self._left(left, timeout)

    def settled(self, instance, host, timeout=5):
        """Give the violations; [] once there are none, for the catalogue follows with the next heartbeats."""
        return self._left(lambda: self.violations(instance, host), timeout)

    def _left(self, look, timeout):
        with contextlib.suppress(LabError):
            self.wait_for(lambda: not look(), 'nothing left', timeout)
            return []
        return look()

    def violations(self, instance, host):
        """Say in words what is not as it must be after a migration: one running guest, on `host`, in the catalogue too, nothing left."""
        found = list(self.world.check())
        places = {r.host: r.places for r in self.rows(tables.service) if r.places}
        where = self.world.where(instance)
        if where != {host: GuestState.RUNNING}:
            found.append(f'the hosts know the guest as {where}, it should run at {host} alone')
        catalogued = self.api.instance_show(instance)
        if catalogued['host'] != host or catalogued['state'] != 'running' or catalogued['locked_by']:
            found.append(f'the catalogue says {catalogued}')
        if self.rows(tables.resource_lock):
            found.append(f'locks are left: {self.rows(tables.resource_lock)}')
        if places:
            found.append(f'places are left: {places}')
        owed = [r for r in self.rows(tables.debt) if r.paid_at is None]
        if owed:
            found.append(f'debts are left: {owed}')
        return found + [f'left over: {x}' for x in self.world.leftovers(instance)]
