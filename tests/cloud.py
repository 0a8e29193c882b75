"""A whole cloud in the lab: real daemons in their hosts, RabbitMQ, a real database, libvirt and QEMU guests that tick and write.

`Cloud` brings it up and lets a test do what an API tier does; `violations` says in words what is not as it must be after a migration,
asked of libvirt, the disks and the database, never of migrator alone. What is killed can be started again: daemons by `restart`, the
rest by the lab's own means. `tests/cluster.py` is the same with simulated hypervisors.
"""
import contextlib
import functools
import os
import pathlib
import sys
import uuid

import fixtures
import kombu
import sqlalchemy as sa

from migrator.conductor.db import tables
from migrator.conductor.db.database import Database
from migrator.rpc import contract
from migrator.rpc.conductor import ConductorAPI
from migrator.states import TERMINAL
from tests import services
from tests.functional.libvirt_harness import emulator
from tests.lab import Console, LabFixture, guest, wait_until
from tests.lab.array import Array
from tests.lab.disk import read_records

#: Short times, so that recovery is seen in seconds, but long enough for two CPUs that emulate guests meanwhile. A heartbeat that a killed
#: conductor had in its hands is given up after 10 s, and no host may count as down before that.
CONDUCTOR = {'claim_seconds': 3.0, 'sweep_interval': 0.3, 'retry_interval': 0.3, 'observe_interval': 0.4, 'poll_interval': 3.0,
             'host_down_after': 15.0, 'host_lost_after': 30.0}
COMPUTE = {'heartbeat_interval': 0.5, 'report_interval': 0.4, 'progress_interval': 0.3}
VOLUME = dict(COMPUTE)
DISK, SMALL_DISK = 48 << 20, 8 << 20
#: Seconds that a guest may be silent. It is a tenth of that in practice; but two CPUs emulate it, and daemons start meanwhile.
SILENCE = 3.0


def delete_queues(url, hosts):
    """Remove the queues of earlier daemons of these hosts, so that nothing of an earlier cloud is heard in the next one."""
    names = [f'{topic}.{host}' for topic in (contract.TOPIC_COMPUTE, contract.TOPIC_VOLUME) for host in hosts]
    names += [f'{contract.TOPIC_CONDUCTOR}.conductor-{n}' for n in range(4)]
    with kombu.Connection(url.replace('rabbit://', 'amqp://', 1), connect_timeout=10) as connection:
        for name in (contract.TOPIC_COMPUTE, contract.TOPIC_VOLUME, contract.TOPIC_CONDUCTOR, *names):
            connection.default_channel.queue_delete(name)


class Guest:
    """A guest as a test knows it: its uuid, its name, the disks that were asked for, and its console, followed over all hosts."""

    def __init__(self, lab, spec, managed=True):
        """spec: as for instance_create. Follows the console at once; `close` ends that."""
        self.uuid, self.name, self.managed = spec['uuid'], spec['name'], managed
        self.disks = [{'format': 'qcow2', 'directory': str(lab.instances), **disk} for disk in spec['disks']]
        self.console = Console(lab.console_paths(self.uuid))
        self.known_pause = 0.0

    def image(self, disk):
        """Path of a disk's image as the hosts see it."""
        return f'{disk["directory"]}/{self.uuid}/{disk["target"]}.{disk["format"]}'

    def close(self):
        """Stop following the console."""
        self.console.close()


class LabDatabase(services.Database):
    """An empty database on a server of the lab. kind: mysql or postgresql."""

    def __init__(self, kind, lab):
        super().__init__(kind)
        self._lab = lab

    def _admin(self, server, variable):
        return sa.make_url(self._lab.start_service(server))


class Cloud(fixtures.Fixture):
    """Daemons on two or more hosts of the lab. `arm` runs them so that they can be told where to die (tests/faults/points.py)."""

    def __init__(self, database='sqlite', conductors=1, hosts=2, arm=False, options=None, arrays=None):
        """database: sqlite, mysql or postgresql. options: {daemon: {section: {option: value}}}; the daemon '' stands for all.

        arrays: {volume agent: {backend: place}} of real arrays, each at svc or at a host; names of backends are all different.
        """
        super().__init__()
        self.volume_agents = arrays or {}
        self.arrays = {}                 # backend -> tests.lab.array.Array
        self._kind, self._conductors, self._hosts, self.arm, self.options = database, conductors, hosts, arm, options or {}
        self.daemons = {}                # migrator's name -> Daemon
        self.guests = {}                 # uuid -> Guest

    def _setUp(self):
        self.lab = self.useFixture(LabFixture(self._hosts, services=['rabbitmq'])).lab
        self.hosts = dict(list(self.lab.hosts.items())[:self._hosts])
        self.kill_file = pathlib.Path(self.lab.folder / 'state' / 'kill')
        url = self.lab.configuration.broker()
        delete_queues(url, [*self.lab.hosts, *self.volume_agents])
        if self._kind != 'sqlite':
            self.lab.configuration.database = self.useFixture(LabDatabase(self._kind, self.lab)).url
        self.addCleanup(self._end)
        for number in range(self._conductors):
            self._start('conductor', f'conductor-{number}')
        for host in self.hosts:
            self._start('compute', host)
        for name, backends in self.volume_agents.items():
            for backend, place in backends.items():
                self.arrays[backend] = self.useFixture(Array(backend, ('fast', 'slow'), self.lab.hosts.get(place, self.lab.svc)))
            self._start('volume', name)
        for daemon in self.daemons.values():
            daemon.wait_for('is ready', 60)
        self.database = Database(self.lab.configuration.database_url())
        self.addCleanup(self.database.dispose)
        self.api = ConductorAPI.from_url(url, 'tester')
        self.addCleanup(self.api.close)
        self.wait_hosts_up()

    def _start(self, kind, name):
        argv = [sys.executable, '-m', 'tests.faults.points', kind] if self.arm else None
        env = {'MIGRATOR_KILL_FILE': str(self.kill_file), 'MIGRATOR_NAME': name}
        start = self.lab.start_conductor if kind == 'conductor' else self.lab.start_agent
        if kind == 'volume':
            start = functools.partial(self.lab.start_volume_agent, arrays={name: self.arrays[name] for name in self.volume_agents[name]})
        self.daemons[name] = start(name, argv=argv, env=env, **self._sections(name))

    def _sections(self, name, more=None):
        sections = {'compute': dict(COMPUTE)} if name in self.hosts else {'conductor': dict(CONDUCTOR)}
        if name in self.volume_agents:
            sections = {'volume': dict(VOLUME)}
        for options in (self.options.get('', {}), self.options.get(name, {}), more or {}):
            for section, values in options.items():
                sections.setdefault(section, {}).update(values)
        return sections

    def _end(self):
        for one in self.guests.values():
            one.close()
        for daemon in self.daemons.values():
            if daemon.running():
                daemon.kill()

    # --- daemons ---

    def wait_hosts_up(self):
        """Wait until the conductor has heard of every agent that runs now."""
        self.wait_for(lambda: all(h['state'] == 'up' for h in self._known()) and len(self._known()) == len(self.hosts), 'all hosts up')
        if self.arrays:
            self.wait_for(lambda: {b['backend'] for b in self.api.backends() if b['state'] == 'up'} == set(self.arrays), 'all arrays up')

    def _known(self):
        return [host for host in self.api.hosts() if host['name'] in self.hosts]

    def kill_at(self, point, key, name):
        """Have the daemon of that name die when it comes to this point."""
        temporary = self.kill_file.with_suffix('.new')
        temporary.write_text(f'{point} {key} {name}')
        os.replace(temporary, self.kill_file)

    def await_death(self, timeout=60):
        """Wait until a daemon has died; returns its name. Fails if all are alive after `timeout` seconds."""
        def dead():
            return next((name for name, daemon in self.daemons.items() if not daemon.running()), None)
        return wait_until(dead, timeout, f'death at {self.kill_file.read_text() if self.kill_file.exists() else "the point"}')

    def restart(self, name):
        """Start a dead daemon again and wait until it is ready."""
        self.daemons[name].start()
        self.daemons[name].wait_for('is ready', 60)

    @contextlib.contextmanager
    def configured(self, name, **sections):
        """Run a daemon with other options during a with-block, as in conductor={'workers': 1}: it is ended in order and started again."""
        self._reconfigure(name, sections)
        yield
        self._reconfigure(name, {})

    def _reconfigure(self, name, sections):
        write = self.lab.configuration.agent if name in self.hosts else self.lab.configuration.conductor
        self.daemons[name].terminate()
        write(name, **self._sections(name, sections))
        before = [host['process_id'] for host in self._known()] if name in self.hosts else []
        self.restart(name)
        if name in self.hosts:
            self.wait_for(lambda: [host['process_id'] for host in self._known()] != before, f'a heartbeat of the new process of {name}')

    def restart_dead(self):
        """Start every daemon again that is not running."""
        for name, daemon in self.daemons.items():
            if not daemon.running():
                self.restart(name)

    # --- guests ---

    def spec(self, disks=None, memory_mib=guest.MEMORY_MIB, name='', **workload):
        """What to ask of instance_create. disks: default one qcow2 disk of 48 MiB. workload: as tests.lab.guest.command_line."""
        identity = str(uuid.uuid4())
        return {'uuid': identity, 'name': name or f'guest-{identity[:8]}', 'memory_mib': memory_mib, 'kernel': str(guest.kernel()),
                'initrd': str(self.lab.initrd), 'cmdline': guest.command_line(**{'write': 0.05, **workload}),
                'disks': disks if disks is not None else [{'target': 'vda', 'size': DISK}]}

    def boot(self, host, **options):
        """Have a guest made and started on `host`, and wait until it ticks and writes. options: see `spec`. Returns a Guest."""
        made = self.boot_without_writing(host, **options)
        made.console.wait_written(2, 30)
        return made

    def boot_without_writing(self, host, **options):
        """The same for a guest that cannot write yet, for it has no such disk; it ticks."""
        spec = self.spec(**options)
        made = self.guests[spec['uuid']] = Guest(self.lab, spec)
        ended = self.ended(self.api.instance_create(host, spec))
        if ended['status'] != 'completed':
            raise AssertionError(f'instance_create: {ended}')
        made.console.wait_for('tick 5 ', 60)
        return made

    @staticmethod
    def await_life(made):
        """Wait until a guest that was just started ticks and, if it is a writer, has written."""
        made.console.wait_for('tick 5 ', 60)
        made.console.wait_written(2, 30)

    def remove(self, made):
        """Stop and delete a guest through migrator."""
        if self.api.instance_show(made.uuid)['state'] != 'stopped':
            self.ended(self.api.instance_stop(made.uuid, timeout=0))
        ended = self.ended(self.api.instance_delete(made.uuid))
        if ended['status'] != 'completed':
            raise AssertionError(f'instance_delete: {ended}')
        self.guests.pop(made.uuid).close()

    # --- migrations ---

    def migrate(self, made, host, timeout=90, request_id=None, **options):
        """Live-migrate a guest and wait for the end; returns the migration as `show` does."""
        return self.ended(self.api.live_migrate(made.uuid, host, request_id=request_id, options=options), timeout)

    def ended(self, migration, timeout=90):
        """Wait for a migration's end; returns it as `show` does."""
        def look():
            view = self.api.show(migration['id'])
            return view if view['status'] in TERMINAL else None
        try:
            return wait_until(look, timeout, f'end of migration {migration["id"]}', interval=0.1)
        except Exception as error:
            raise AssertionError(f'{error}: {self.api.show(migration["id"])}') from error

    def await_copying(self, made, host, what='Memory', timeout=60):
        """Wait until libvirt at `host` has sent some of the guest's Memory, or before that of its Files, to the other host."""
        def copying():
            said = self.hosts[host].virsh('domjobinfo', made.uuid, check=False)
            sent = [line.split()[-2] for line in said.splitlines() if line.startswith(f'{what} processed:')]
            return 'Completed' not in said and any(float(amount) for amount in sent)
        wait_until(copying, timeout, f'copying of {made.name} from {host}', interval=0.05)

    @staticmethod
    def wait_for(condition, what, timeout=30):
        """Wait until `condition` gives something true; returns it."""
        return wait_until(condition, timeout, what, interval=0.1)

    # --- looking ---

    def rows(self, table):
        """Everything in a table."""
        return self.database.run(lambda tx: tx.execute(sa.select(table)).all())

    def where(self, made):
        """What libvirt itself says: {host: state in its words} of every host that knows the guest."""
        known = {name: host for name, host in self.hosts.items() if made.uuid in host.domains()}
        said = {name: host.virsh('domstate', made.uuid, check=False).strip() for name, host in known.items()}
        return {name: state for name, state in said.items() if state}    # it may leave between the two questions

    def violations(self, made, host, state='running'):
        """Say in words what is not as it must be: the guest once, at `host`, in the catalogue too, nothing of it anywhere else."""
        found = []
        where = self.where(made)
        if where != {host: {'running': 'running', 'stopped': 'shut off'}[state]}:
            found.append(f'libvirt knows the guest as {where}, it should be {state} at {host} alone')
        emulators = [name for name, place in self.hosts.items() if emulator(place, made.uuid)]
        if emulators != ([host] if state == 'running' else []):
            found.append(f'QEMU runs it at {emulators}')
        known = self.api.instance_show(made.uuid)
        if known['host'] != host or known['state'] != state or known['locked_by'] or known['debts']:
            found.append(f'the catalogue says {known}')
        return found + self._in_database() + self._files(made, host)

    def _in_database(self):
        rows = [(row.resource, row.migration_id) for row in self.rows(tables.resource_lock)]
        places = {row.host: row.places for row in self.rows(tables.service) if row.places}
        owed = [(row.host, row.action, row.reason) for row in self.rows(tables.debt) if row.paid_at is None]
        return [f'{what} are left: {left}' for what, left in (('locks', rows), ('places', places), ('debts', owed)) if left]

    def _files(self, made, at):
        """What is wrong with the guest's files, in words: every file of it elsewhere, every marker of a migration anywhere."""
        found = []
        for name, host in self.hosts.items():
            paths = [path for folder in (host.instances_outside, host.state / 'incoming') for path in folder.rglob('*')
                     if made.uuid in str(path)]
            if name != at:
                found += [f'left at {name}: {path}' for path in paths]
            found += [f'marker at {name}: {path}' for path in paths if path.name.endswith('.migrator-migration') or path.name == made.uuid
                      and path.parent.name == 'incoming']
        owners = [path.read_text().strip() for folder in (self.hosts[at].instances_outside, self.lab.shared)
                  for path in folder.glob(f'{made.uuid}/.migrator-created')]
        if made.managed and set(owners) != {at}:
            found.append(f'the markers say that the guest belongs to {owners}')
        return found

    def settled(self, made, host, state='running', timeout=12):
        """Give the violations once heartbeats have settled: at once if there are none."""
        try:
            self.wait_for(lambda: not self.violations(made, host, state), 'no violation', timeout)
        except Exception:
            return self.violations(made, host, state)
        return []

    def check_life(self, made, host, silence=SILENCE):
        """Raise AssertionError unless the guest ticks on, was never silent for long, and all that it knew to be written is on its disk."""
        made.console.wait_ticks(2, 30)
        pause, missing = made.console.longest_pause(), made.console.missing()
        if missing or pause > max(silence, made.known_pause):
            raise AssertionError(f'the guest was silent for {pause:.2f} s ({made.console.largest_gap():.2f} s with the time in which '
                                 f'processors were lacking), and its ticks {missing[:10]} are missing')
        made.known_pause = max(pause, made.known_pause)
        self.check_disk(made, host)

    def check_disk(self, made, host):
        """Raise unless every record that the guest announced is on its first disk. A running guest is held for the reading."""
        place, disk = self.hosts[host], made.disks[0]
        running = self.where(made) == {host: 'running'}
        if running:
            place.virsh('suspend', made.uuid)
        try:
            acknowledged = made.console.last_written()
            if disk.get('uri'):
                found = read_records(self.lab.folder / 'volumes' / f'{disk["uri"].rpartition("/")[2]}.raw', 'raw')
            else:
                found = read_records(made.image(disk), disk['format'], place)
        finally:
            if running:
                place.virsh('resume', made.uuid)
        found.check(acknowledged)
        if not acknowledged:
            raise AssertionError('the guest has not written at all')

    def leftovers(self):
        """Name every domain, every emulator and every file of a guest that is on any host. For when all guests are deleted."""
        found = []
        for name, host in self.hosts.items():
            found += [f'{name}: domain {domain}' for domain in host.domains()]
            paths = [*host.instances_outside.iterdir(), *(host.state / 'incoming').glob('*')]
            found += [f'{name}: {path}' for path in paths if path.name != '.migrator-storage-id']
        return found + [str(path) for path in self.lab.shared.iterdir() if path.name != '.migrator-storage-id']
