"""The simulated world seen from above: what tests, the demo and the benchmark build, script and ask.

    world = World('/tmp/world.db')            # the same text as [fake] world of the agents
    world.share('/shared', ['alpha', 'beta'])
    world.inject('alpha', 'live_migration', 'die-after')
    ...
    assert world.check() == []                # one copy in charge, nothing lost

Any process may open a world at any time; what a script does is done to the simulated hypervisors behind the agents' backs.
"""
import dataclasses
import time
import uuid as uuids

from migrator import exceptions
from migrator.compute.drivers.fake import audit, guests, instances, jobs, store, volumes
from migrator.rpc import facts
from migrator.simulated import faults
from migrator.states import GuestState, PauseReason


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a mutating driver method. result: ok, an error's name; for live_migration started, completed, failed, aborted.

    changed: False when it found everything done already.
    """

    at: float
    process: int
    host: str
    method: str
    uuid: str
    migration: str
    result: str
    changed: bool


class World:
    """One simulated world. All methods may be called from any thread that may use SQLite."""

    def __init__(self, name=''):
        """name: as [fake] world: a file's path, or '' or 'memory:NAME' for a world in this process."""
        self.name = name
        self.store = store.open_store(name)

    def forget(self):
        """Close the world; one in memory is gone. Other users of it in this process must be stopped before."""
        store.forget(self.name)

    # --- building ---

    def add_host(self, name, memory_mib=65536, cpus=32, version=1_000_000, directories=()):
        """Make or change a host, and give it those storage directories that it lacks, each with an identity of its own."""
        with self.store.write() as db:
            db.execute('INSERT INTO host (name, memory_mib, cpus, version) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET '
                       'memory_mib = excluded.memory_mib, cpus = excluded.cpus, version = excluded.version',
                       (name, memory_mib, cpus, version))
            db.executemany('INSERT OR IGNORE INTO storage (host, directory, identity) VALUES (?, ?, ?)',
                           [(name, directory.rstrip('/'), str(uuids.uuid4())) for directory in directories])

    def share(self, directory, hosts):
        """Make `directory` one shared storage for these hosts; before they have files in it. Returns its identity."""
        identity = str(uuids.uuid4())
        with self.store.write() as db:
            db.executemany('INSERT OR REPLACE INTO storage (host, directory, identity) VALUES (?, ?, ?)',
                           [(host, directory.rstrip('/'), identity) for host in hosts])
        return identity

    def add_guests(self, specs):
        """Add running guests that no driver made, in one transaction.

        specs: dicts of host, uuid, and optionally name, memory_mib, vcpus, dirty_mib, disks (facts.Disk, with path and directory), on
        (default True). Files are made where they are not there yet.
        """
        now = time.time()
        with self.store.write() as db:
            for spec in specs:
                host, uuid, disks = spec['host'], spec['uuid'], tuple(spec.get('disks', ()))
                instances.add(db, host, uuid, spec.get('name', f'guest-{uuid[:8]}'), spec.get('memory_mib', 128), spec.get('vcpus', 1),
                              disks, dirty_mib=spec.get('dirty_mib', instances.DIRTY_MIB))
                for disk in guests.local(disks):
                    if guests.file_of(db, host, uuid, disk) is None:
                        guests.make_file(db, host, uuid, disk, guests.FOUND, complete=1)
                if spec.get('on', True):
                    guests.set_state(db, host, uuid, GuestState.RUNNING, now=now)

    def add_guest(self, host, uuid=None, **spec):
        """Add one guest as `add_guests` does; returns its uuid."""
        uuid = uuid or str(uuids.uuid4())
        self.add_guests([dict(spec, host=host, uuid=uuid)])
        return uuid

    def disk(self, uuid, directory, target='vda', size=1 << 30, **more):
        """Describe a private or shared file disk for `add_guest`."""
        return facts.Disk(target=target, size=size, directory=directory, path=f'{directory}/{uuid}/{target}.qcow2', cache='none', **more)

    def add_file(self, host, directory, uuid, name, owner=''):
        """Put a file in a guest's directory (uuid '': a backing image, `name` relative to the directory). owner '': nobody's."""
        with self.store.write() as db:
            db.execute('INSERT INTO file (identity, uuid, name, owner) VALUES (?, ?, ?, ?)',
                       (guests.identity(db, host, directory), uuid, name, owner))

    # --- scripts ---

    def inject(self, host, method, action, times=1):
        """Order a fault (see `faults`) for the next `times` calls of a driver's method; -1: all. Returns its number."""
        faults.check_action(action)
        with self.store.write() as db:
            return db.execute('INSERT INTO fault (host, method, action, times) VALUES (?, ?, ?, ?)',
                              (host, method, action, times)).lastrowid

    def release(self, host=None, method=None):
        """Take back faults; calls that hang go on."""
        with self.store.write() as db:
            db.execute('DELETE FROM fault WHERE (? IS NULL OR host = ?) AND (? IS NULL OR method = ?)', (host, host, method, method))

    def host_down(self, host):
        """The hypervisor answers nobody any more: every driver method raises DriverError. Its guests and jobs go on."""
        with self.store.write() as db:
            db.execute('UPDATE host SET down = 1 WHERE name = ?', (host,))

    def host_crash(self, host):
        """The host loses power: as host_down, and its guests are off, those that arrive are gone, and its jobs fail."""
        with jobs.acting(self.store) as (db, now):
            db.execute('UPDATE host SET down = 1 WHERE name = ?', (host,))
            for job in db.execute("SELECT * FROM job WHERE state = 'active' AND (source = ? OR destination = ?)", (host, host)).fetchall():
                jobs.fail(db, job, f'connection lost: {host} is down', now)
            db.execute("DELETE FROM guest WHERE host = ? AND state = 'incoming'", (host,))
            for row in db.execute("SELECT uuid FROM guest WHERE host = ? AND state != 'off'", (host,)).fetchall():
                guests.set_state(db, host, row['uuid'], GuestState.OFF, now=now)

    def host_up(self, host):
        """The hypervisor answers again."""
        with self.store.write() as db:
            db.execute('UPDATE host SET down = 0 WHERE name = ?', (host,))

    def power_off(self, uuid):
        """The guest turns itself off, wherever it runs; a migration of it fails."""
        with jobs.acting(self.store) as (db, now):
            job = jobs.active(db, uuid)
            if job is not None:
                jobs.fail(db, job, f'operation failed: domain {uuid} is not running', now)
            row = db.execute("SELECT host FROM guest WHERE uuid = ? AND state IN ('running', 'paused')", (uuid,)).fetchone()
            if row is None:
                raise exceptions.InstanceNotRunning(f'{uuid} runs nowhere in the simulated world')
            guests.set_state(db, row['host'], uuid, GuestState.OFF, now=now)

    def fail_job(self, uuid, error='stream broken', leave_paused=False, leave_incoming=False):
        """Break the guest's migration job; optionally with both ends as a lost finish leaves them. False if there was none."""
        with jobs.acting(self.store) as (db, now):
            job = jobs.active(db, uuid)
            if job is None:
                return False
            jobs.fail(db, job, error, now, leave_incoming=leave_incoming)
            if leave_paused:
                guests.set_state(db, job['source'], uuid, GuestState.PAUSED, PauseReason.MIGRATION, now)
            return True

    def finish_job(self, uuid):
        """Let the guest's migration job end at once and well, however long it would take. False if there was none."""
        with jobs.acting(self.store) as (db, now):
            return db.execute("UPDATE job SET ends = ? WHERE uuid = ? AND state = 'active'", (now, uuid)).rowcount > 0

    def end_jobs(self, ends):
        """Let jobs that run end well at moments of one's own choice. ends: {migration: seconds since the epoch}."""
        with jobs.acting(self.store) as (db, _now):
            db.executemany("UPDATE job SET ends = ? WHERE migration = ? AND state = 'active'",
                           [(end, migration) for migration, end in ends.items()])

    def set_state(self, host, uuid, state, reason=PauseReason.NONE):
        """Bring a host's guest into any state; InstanceNotFound if the host has none of that uuid."""
        with jobs.acting(self.store) as (db, now):
            if guests.get(db, host, uuid) is None:
                raise exceptions.InstanceNotFound(f'no guest {uuid} at {host}')
            guests.set_state(db, host, uuid, state, reason, now)

    def carry(self, uuid, source, destination):
        """Bring a guest that is off to another host by hand and start it there; its disks stay where they are."""
        with jobs.acting(self.store) as (db, now):
            db.execute("UPDATE guest SET host = ? WHERE host = ? AND uuid = ? AND state = 'off'", (destination, source, uuid))
            guests.set_state(db, destination, uuid, GuestState.RUNNING, now=now)

    def undefine(self, host, uuid, files=True):
        """Remove a guest from a host behind everybody's back, and its files there, too, unless files is false."""
        with jobs.acting(self.store) as (db, now):
            for file in guests.files_of(db, host, uuid) if files else ():
                db.execute('DELETE FROM truth WHERE uuid = ?', (uuid,))     # on purpose: nothing is lost with its disks
                guests.remove_file(db, file, now)
            db.execute('DELETE FROM guest WHERE host = ? AND uuid = ?', (host, uuid))

    def set_dirty_rate(self, uuid, mib):
        """From its next migration on, the guest dirties `mib` MiB a second."""
        with self.store.write() as db:
            db.execute('UPDATE guest SET dirty_rate = ? WHERE uuid = ?', (mib * guests.MIB, uuid))

    def set_deaf(self, uuid, deaf=True):
        """Whether the guest ignores a request to shut down."""
        with self.store.write() as db:
            db.execute('UPDATE guest SET deaf = ? WHERE uuid = ?', (int(deaf), uuid))

    def set_export(self, uri, answers):
        """Let an export of a volume fail, which pauses the guests that run with it by an I/O error, or answer again."""
        with jobs.acting(self.store) as (db, now):
            volumes.set_answers(db, uri, answers, now)

    def stamp(self, host, uuid, text):
        """Write `text` into the guest's disks as `host` sees them."""
        with self.store.write() as db:
            for file in guests.files_of(db, host, uuid):
                db.execute('UPDATE file SET stamp = ? WHERE identity = ? AND uuid = ? AND name = ?',
                           (text, file['identity'], uuid, file['name']))

    # --- questions ---

    def where(self, uuid):
        """Which hosts know the guest: a dict of host -> state, after every job that is due."""
        with self._settled() as db:
            rows = db.execute('SELECT host, state FROM guest WHERE uuid = ? ORDER BY host', (uuid,))
            return {row['host']: GuestState(row['state']) for row in rows}

    def files(self, uuid, host=None):
        """Files of a guest as dicts {identity, uuid, name, owner, content, complete, stamp …}; all, or those that `host` sees."""
        with self._settled() as db:
            found = guests.files_of(db, host, uuid) if host else db.execute('SELECT * FROM file WHERE uuid = ?', (uuid,)).fetchall()
            return [dict(row) for row in found]

    def writes(self, uuid):
        """How much the guest has written in its life."""
        with self._settled() as db:
            row = db.execute("SELECT * FROM guest WHERE uuid = ? AND state = 'running'", (uuid,)).fetchone()
            truth = db.execute('SELECT writes FROM truth WHERE uuid = ?', (uuid,)).fetchone()
            return guests.writes_at(row, time.time()) if row else truth['writes'] if truth else 0

    def jobs(self, uuid=None):
        """Migration jobs, running and ended, oldest first, as dicts."""
        with self._settled() as db:
            return [dict(row) for row in db.execute('SELECT * FROM job WHERE ? IS NULL OR uuid = ? ORDER BY id', (uuid, uuid))]

    def history(self, uuid=None, method=None, host=None):
        """Calls of mutating driver methods, oldest first, as `Call`s."""
        with self._settled() as db:
            rows = db.execute('SELECT * FROM history WHERE (? IS NULL OR uuid = ?) AND (? IS NULL OR method = ?) '
                              'AND (? IS NULL OR host = ?) ORDER BY id', (uuid, uuid, method, method, host, host)).fetchall()
            return [Call(**{f.name: r[f.name] for f in dataclasses.fields(Call)} | {'changed': bool(r['changed'])}) for r in rows]

    def check(self):
        """What has broken the promise of the project, in words; empty is good. See `audit`."""
        with self._settled() as db:
            return audit.violations(db)

    def leftovers(self, uuid):
        """What a guest has left where it is not, in words: files, domains, markers, jobs. Empty after a migration that ended well."""
        with self._settled() as db:
            return audit.leftovers(db, uuid)

    def _settled(self):
        jobs.settle_due(self.store)
        return self.store.read()
