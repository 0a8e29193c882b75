"""A small cloud within one process: simulated hosts, their agents, conductors, a database and a broker. For tests and the demo.

    with Cloud(hosts=('alpha', 'beta')) as cloud:
        guest = cloud.create('web', 'alpha')
        cloud.wait(cloud.api.live_migrate('web', 'beta'), 'completed')
        cloud.assert_clean(guest, 'beta')

Everything but the hypervisor is the real thing: daemons, RPC servers and clients, journals, database. The intervals are short. Works on
plain threads and, where `migrator.concurrency.setup()` was called before the first import, on green ones.
"""
import contextlib
import json
import shutil
import tempfile
import time
import uuid

import sqlalchemy as sa
from oslo_config import cfg

from migrator import concurrency, config, exceptions
from migrator.compute.drivers.fake.driver import FakeDriver
from migrator.compute.drivers.fake.world import World
from migrator.compute.service import ComputeService
from migrator.conductor.db import schema, tables
from migrator.conductor.db.database import Database
from migrator.conductor.service import ConductorService
from migrator.rpc.conductor import ConductorAPI
from migrator.rpc.transport import get_transport
from migrator.states import TERMINAL, GuestState
from tests import memory_broker
from tests.simulated_volumes import VolumeAgents

#: Options of every daemon, as group__name.
FAST = {
    'compute__heartbeat_interval': 0.2, 'compute__report_interval': 0.2, 'compute__driver': 'fake', 'compute__instances_path': '/instances',
    'compute__extra_disk_paths': ['/shared'], 'volume__heartbeat_interval': 0.2, 'volume__report_interval': 0.2,
    'conductor__sweep_interval': 0.1, 'conductor__claim_seconds': 1.0,
    'conductor__retry_interval': 0.1, 'conductor__observe_interval': 0.1, 'conductor__poll_interval': 1.0,
    'conductor__host_lost_after': 3.0, 'conductor__host_down_after': 2.0, 'fake__migration_seconds': 0.1}

SHARED = '/shared'
PATIENCE = 20.0


def wait_for(condition, what, timeout=PATIENCE, pause=0.02):
    """Wait until `condition()` is true and give its value. Raises AssertionError with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f'{what() if callable(what) else what} did not come about within {timeout:g} s')
        time.sleep(pause)


class MortalDriver(FakeDriver):
    """The simulated driver of an agent that a test may kill: nothing it was about to do happens after its death."""

    dead = False

    def _effect(self, method, uuid, migration, effect):
        if self.dead:
            raise exceptions.DriverError('the agent was killed')
        return super()._effect(method, uuid, migration, effect)


class MortalDatabase(Database):
    """The database as a conductor sees it that a test may kill: nothing is written after its death."""

    dead = False

    def run(self, work):
        if self.dead:
            raise exceptions.Unavailable('the conductor was killed')
        return super().run(work)


class Cloud:
    """See the module's description. A context manager, and a fixture for `useFixture` (setUp, cleanUp).

    hosts: their names. arrays: {host: {backend: options}} of volume agents, see tests.simulated_volumes. conductors: how many. database: an
    SQLAlchemy URL of an empty or upgraded database; None: an SQLite file. transport: a URL; None: a broker in memory of its own, `broker`.
    options: group__name values over FAST. api: a ConductorAPI. world: the simulated World. volumes: the VolumeAgents. database: to look at.
    agents: by host. conductors: by name. directory: of all state.
    """

    def __init__(self, hosts=('alpha', 'beta'), conductors=1, database=None, transport=None, arrays=None, **options):
        self.hosts = tuple(hosts)
        self.arrays = arrays or {}
        self.options = {**FAST, **options}
        self.agents, self.conductors, self._drivers = {}, {}, {}
        self.broker = None if transport else memory_broker.Broker()
        self._transport_url = transport
        self._number = conductors
        self._given = database
        self._ends = contextlib.ExitStack()

    # --- its life ---

    def setUp(self):
        """Build it; returns when all hosts are up."""
        with contextlib.ExitStack() as ends:
            self.directory = tempfile.mkdtemp(prefix='migrator-cloud-')
            ends.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.url = self._given or f'sqlite:///{self.directory}/migrator.db'
            self.world = World(f'memory:{uuid.uuid4()}')
            ends.callback(self.world.forget)
            self.world.share(SHARED, self.hosts)
            self.database = Database(self.url)
            ends.callback(self.database.dispose)
            schema.upgrade(self.database)
            self.volumes = VolumeAgents(self.arrays, self.conf, self._connect)
            ends.callback(self.volumes.world.forget)
            ends.callback(self._stop_all)
            for _ in range(self._number):
                self.add_conductor()
            for host in self.hosts:
                self.start_agent(host)
            for host in self.arrays:
                self.volumes.start(host)
            conf = self.conf('user')
            self.transport = self._connect('user', conf)
            self.api = ConductorAPI(conf, self.transport, user='tester')
            self.wait_up(*self.hosts)
            self.wait_arrays(*self.arrays)
            self._ends = ends.pop_all()

    def cleanUp(self):
        """Take it down."""
        self._ends.close()

    def getDetails(self):
        """Nothing but what the logs say."""
        return {}

    def __enter__(self):
        self.setUp()
        return self

    def __exit__(self, *_error):
        self.cleanUp()

    def _stop_all(self):
        self.world.release()
        self.volumes.end()
        for host in list(self.agents):
            self.kill_agent(host)
        for name in list(self.conductors):
            self.stop_conductor(name)

    def conf(self, host):
        """Make the options of one daemon."""
        conf = config.register(cfg.ConfigOpts())
        conf([], project='migrator', default_config_files=[], default_config_dirs=[])
        for key, value in {**self.options, 'host': host, 'state_path': self.directory, 'fake__world': self.world.name}.items():
            group, _, name = key.rpartition('__')
            conf.set_override(name, value, group=group or None)
        return conf

    def _connect(self, name, conf):
        if self.broker is not None:
            return self.broker.transport(name, conf)
        return get_transport(conf, self._transport_url)

    # --- what goes wrong ---

    def lose_reports(self, host):
        """No outcome of an operation at this host reaches a conductor, until its agent is killed."""
        self.broker.lost.add((host, 'operation_finished'))

    def kill_before_sending(self, method):
        """The conductor that is about to send this method next dies instead, with the operation stored."""
        def kill(name):
            self.conductors[name].database.dead = True
            concurrency.spawn(self.kill_conductor, name)
        self.broker.traps[method] = kill

    # --- agents ---

    def start_agent(self, host):
        """Start a host's agent, whose journal outlives it."""
        conf = self.conf(host)
        driver = MortalDriver(conf, host)
        agent = ComputeService(conf, self._connect(host, conf), driver)
        agent.start()
        self.agents[host], self._drivers[host] = agent, driver
        return agent

    def kill_agent(self, host):
        """End a host's agent as a SIGKILL does: nothing is drained, told or written any more. The hypervisor goes on."""
        agent, driver = self.agents.pop(host), self._drivers.pop(host)
        if self.broker is not None:
            self.broker.lost.discard((host, 'operation_finished'))
        driver.dead = True
        agent.operations.stop()
        agent.heartbeat.stop()
        agent.stalls.stop()
        agent._server.stop()
        driver.stop()
        agent._journal.close()

    def stop_agent(self, host):
        """End a host's agent in order."""
        agent = self.agents.pop(host)
        self._drivers.pop(host)
        agent.stop()

    def restart_agent(self, host):
        """Kill a host's agent and start it again."""
        self.kill_agent(host)
        return self.start_agent(host)

    def wait_up(self, *hosts):
        """Wait until the conductors know these hosts as up, by their present processes."""
        expected = {(host, self.agents[host].process_id) for host in hosts}
        wait_for(lambda: expected <= {(h['name'], h['process_id']) for h in self.api.hosts() if h['state'] == 'up'}, f'{hosts} up')

    def wait_down(self, host):
        """Wait until the conductors know a host as down."""
        wait_for(lambda: self.api.host_show(host)['state'] == 'down', f'{host} down')

    def wait_arrays(self, *hosts):
        """Wait until the conductors know all backends of these hosts' volume agents as up."""
        expected = {f'{host}@{backend}' for host in hosts for backend in self.arrays[host]}
        if expected:
            wait_for(lambda: expected <= {b['name'] for b in self.api.backends() if b['state'] == 'up'}, f'{expected} up')

    # --- conductors ---

    def add_conductor(self):
        """Start another conductor; returns its name."""
        name = f'conductor-{len(self.conductors) + 1}-{uuid.uuid4().hex[:6]}'
        conf = self.conf(name)
        service = ConductorService(conf, self._connect(name, conf), MortalDatabase(self.url))
        service.start()
        self.conductors[name] = service
        return name

    def stop_conductor(self, name=None):
        """End a conductor in order; None: the oldest."""
        self.conductors.pop(name or next(iter(self.conductors))).stop()

    def kill_conductor(self, name=None):
        """End a conductor as a SIGKILL does: nothing that it was about to write is written. None: the oldest.

        It is one of `conductors` until it has gone, for as long it answers requests, with errors.
        """
        name = name or next(iter(self.conductors))
        service = self.conductors[name]
        service.database.dead = True
        service.stop()
        del self.conductors[name]

    # --- what users do ---

    def create(self, name, host, shared=False, start=True, disks=1, size=1 << 24, **spec):
        """Have a guest made, and started unless start is false. Returns its uuid.

        shared: its disks lie in the storage that all hosts share. disks: how many, of `size` bytes. spec: more of InstanceSpec, such
        as memory_mib or cmdline ('dirty_mib=600').
        """
        spec = {'uuid': str(uuid.uuid4()), 'name': name, 'memory_mib': 64, **spec}
        spec.setdefault('disks', [{'target': f'vd{letter}', 'size': size, 'directory': SHARED if shared else ''}
                                  for letter in 'abcdefgh'[:disks]])
        self.wait(self.api.instance_create(host, spec, start=start), 'completed')
        return spec['uuid']

    def wait(self, migration, status=TERMINAL, timeout=PATIENCE):
        """Wait until a migration has a status, one or several; returns its view with events.

        Raises AssertionError with its timeline after `timeout` seconds, or at once when it has ended in another status.
        """
        wanted = {str(status)} if isinstance(status, str) else {str(s) for s in status}
        migration_id = migration if isinstance(migration, str) else migration['id']
        deadline = time.monotonic() + timeout
        while True:
            view = self.api.show(migration_id)
            if view['status'] in wanted:
                return view
            if view['status'] in TERMINAL or time.monotonic() > deadline:
                raise AssertionError(f'{view["kind"]} is {view["status"]}, not {" or ".join(sorted(wanted))}: {timeline(view)}')
            time.sleep(0.02)

    def migrate(self, instance, destination, status='completed', timeout=PATIENCE):
        """Ask for a live migration and wait for its end in `status`."""
        return self.wait(self.api.live_migrate(instance, destination), status, timeout)

    def wait_call(self, method, host=None, timeout=PATIENCE):
        """Wait until a driver's method was called at a host, whatever came of it. Returns the last such call."""
        return wait_for(lambda: self.world.history(method=method, host=host), f'a call of {method}', timeout)[-1]

    def wait_job(self, instance, timeout=PATIENCE):
        """Wait until the hypervisor's migration job of a guest runs."""
        return wait_for(lambda: [j for j in self.world.jobs(instance) if j['state'] == 'active'], 'a migration job', timeout)[0]

    def wait_debts(self, number, timeout=PATIENCE):
        """Wait until there are so many open debts; returns their rows."""
        wait_for(lambda: len(self.debts()) == number, lambda: f'{number} debts (there are {self.debts()})', timeout)
        return self.debts()

    # --- what is true ---

    def debts(self):
        """Open debts."""
        with self.database.engine.connect() as db:
            return db.execute(sa.select(tables.debt).where(tables.debt.c.paid_at.is_(None))).all()

    def locks(self):
        """Locks that are held, as resource -> migration."""
        with self.database.engine.connect() as db:
            return {row.resource: row.migration_id for row in db.execute(sa.select(tables.resource_lock))}

    def places(self):
        """Places that migrations take, by host."""
        with self.database.engine.connect() as db:
            return {row.host: row.places for row in db.execute(sa.select(tables.service))}

    def dump(self, *without):
        """Everything in the database that only a request may change, as text: all tables, without what heartbeats write."""
        skipped = {'service': {'last_seen', 'sequence', 'monotonic', 'facts'}, 'instance': {'updated_at', 'disks'}}
        with self.database.engine.connect() as db:
            return json.dumps({
                table.name: [[str(v) for c, v in row._mapping.items() if c not in skipped.get(table.name, ())]
                             for row in db.execute(sa.select(table).order_by(*table.primary_key.columns))]
                for table in tables.metadata.sorted_tables if table.name not in without}, indent=1)

    def assert_clean(self, instance, host, state='running'):
        """Assert that a guest's story has ended well: one guest, at `host`, and nothing left over that no debt names.

        instance: uuid. host: where it must be, and the catalogue must say so. state: running, or stopped.
        """
        expected = GuestState.RUNNING if state == 'running' else GuestState.OFF
        debts = [d for d in self.debts() if d.instance_uuid == instance]
        owing = {d.host for d in debts}
        where = self.world.where(instance)
        alive = {h: s for h, s in where.items() if s in (GuestState.RUNNING, GuestState.PAUSED)}
        problems = list(self.world.check())
        if where.get(host) != expected or set(alive) - {host}:
            problems.append(f'the guest must be {expected} at {host} and nowhere else, it is {where}')
        problems += [f'left over: {words}' for words in self.world.leftovers(instance) if not any(f'at {h}' in words for h in owing)]
        row = self.api.instance_show(instance)
        if (row['host'], row['state'], row['locked_by']) != (host, state, ''):
            problems.append(f'the catalogue says {row}')
        if f'instance:{instance}' in self.locks():
            problems.append('its lock is held')
        if any(self.places().values()):
            problems.append(f'places are taken: {self.places()}')
        if problems:
            raise AssertionError('; '.join(problems))


def timeline(view):
    """Write a migration's view as text for an assertion's message."""
    lines = [f'{view["id"]} {view["status"]} {view["step"]} {view["reason"]} {view["error"]}']
    lines += [f'  {e["at"][11:]} {e["status"]} {e["step"]} {e["what"]}: {e["reason"]}' for e in view.get('events', ())]
    return '\n'.join(lines)
