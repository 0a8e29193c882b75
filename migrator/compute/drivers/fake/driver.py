"""The simulated hypervisor's driver: the contract of `migrator.compute.driver` over a world that outlives the agent.

The methods run in native threads. They log nothing and touch no green primitive; what they did is in the world's history.
"""
import os
import time

from migrator import concurrency, exceptions
from migrator.compute import boot_files, driver
from migrator.compute.drivers.fake import guests, instances, jobs, steps, volumes, watch
from migrator.compute.drivers.fake.world import World
from migrator.rpc import facts, traces
from migrator.simulated import faults
from migrator.states import GuestState, PauseReason

VERSION = 1_000_000
MACHINES = ('fake-1.0', 'fake')
CPU = 'fake-cpu'
#: Bytes that each simulated storage can hold.
STORAGE_SIZE = 1 << 44
POLL_SECONDS = 0.1
#: Begins the name of a file that was being made when its agent died. Nothing here makes one; tests put them there.
TEMPORARY = '.migrator-tmp-'


class FakeDriver(driver.ComputeDriver):
    """One simulated hypervisor. Options: group [fake]; the host's directories are those of [compute]."""

    def __init__(self, conf, host):
        super().__init__(conf, host)
        self._directory = conf.compute.instances_path.rstrip('/')
        self._world = self._store = self._faults = self._watcher = None

    def start(self):
        """See the contract. InvalidRequest for a malformed [fake] faults."""
        if self._world is None:
            self._world = World(self.conf.fake.world)
            self._store = self._world.store
            self._faults = faults.Faults(self._store, self.host, self.conf.fake.faults)
            self._watcher = watch.watcher_of(self._store)
        self._faults.start()
        self._world.add_host(self.host, self.conf.fake.memory_mib, self.conf.fake.cpus, VERSION,
                             [self._directory, *self.conf.compute.extra_disk_paths])
        with self._store.read() as db:
            self._check_up(db)

    def stop(self):
        """See the contract. Calls that wait here raise DriverError; their jobs go on."""
        if self._world is not None:
            self._faults.stop()
            self._watcher.release(self)

    # --- what is there ---

    def host_facts(self):
        """See the contract."""
        def look(db, _):
            row = db.execute('SELECT * FROM host WHERE name = ?', (self.host,)).fetchone()
            return facts.Host(hypervisor_name=f'{self.host}.simulated', hypervisor_type='fake', hypervisor_version=row['version'],
                              cpus=row['cpus'], memory_mib=row['memory_mib'], memory_free_mib=max(0, steps.memory_free(db, self.host)),
                              availability_zone=self.conf.compute.availability_zone, storage=self._storage(db))
        return self._look('host_facts', look)

    def inventory(self):
        """See the contract."""
        return self._look('inventory', lambda db, _: tuple(
            facts.Guest(uuid=r['uuid'], name=r['name'], state=GuestState(r['state']), memory_mib=r['memory_mib'], vcpus=r['vcpus'],
                        disks=guests.disks_of(r['disks']), managed=bool(r['managed']))
            for r in db.execute('SELECT * FROM guest WHERE host = ? ORDER BY uuid', (self.host,))))

    def audit(self):
        """See the contract."""
        def look(db, _):
            found = [traces.Trace('domain', r['uuid'], r['name'], r['state']) for r in
                     db.execute('SELECT * FROM guest WHERE host = ?', (self.host,))]
            found += [traces.Trace('job', r['uuid'], f'job {r["id"]}', migration_id=r['migration']) for r in
                      db.execute("SELECT * FROM job WHERE state = 'active' AND ? IN (source, destination)", (self.host,))]
            files = db.execute('SELECT file.*, storage.directory FROM file JOIN storage ON storage.identity = file.identity '
                               "WHERE storage.host = ? AND file.uuid != ''", (self.host,))
            found += [traces.Trace('temporary' if r['name'].startswith(TEMPORARY) else 'file', r['uuid'],
                                   f'{r["directory"]}/{r["uuid"]}/{r["name"]}', storage=r['identity'], migration_id=(
                r['owner'].removeprefix(guests.BY_MIGRATION) if r['owner'].startswith(guests.BY_MIGRATION) else '')) for r in files]
            return tuple(found)
        return self._look('audit', look)

    def locate(self, instance_uuid):
        """See the contract."""
        def look(db, _):
            row = guests.get(db, self.host, instance_uuid)
            if row is None:
                return facts.Location(state=GuestState.ABSENT)
            job = jobs.active(db, instance_uuid)
            return facts.Location(state=GuestState(row['state']), reason=PauseReason(row['reason']), persistent=bool(row['persistent']),
                                  job_active=job is not None and self.host in (job['source'], job['destination']))
        return self._look('locate', look)

    def progress(self, instance_uuid):
        """See the contract."""
        def look(db, now):
            job = jobs.active(db, instance_uuid)
            return jobs.copy_of(job).at(now - job['started']) if job is not None and job['source'] == self.host else facts.Job()
        try:
            return self._look('progress', look)
        except exceptions.DriverError:  # best effort by contract: what cannot be told is an empty Job
            return facts.Job()

    def check_can_live_migrate_destination(self, guest):
        """See the contract."""
        def look(db, _):
            row, storage = guests.get(db, self.host, guest.uuid), self._storage(db)
            found = tuple(d.path for d in guests.local(guest.disks) if guests.file_of(db, self.host, guest.uuid, d) is not None)
            strange = self._strange_files(db, guest)
            occupied = f'files stand in the way: {", ".join(strange)}' if strange else ''
            if row is not None:
                occupied = f'a guest of this uuid is {row["state"]} here'
            silent = [d.path for d in guest.disks if d.kind == 'network' and not volumes.answers(db, d.path)]
            backing = dict.fromkeys(d.backing for d in guest.disks if d.backing and guests.image_found(db, self.host, d.backing))
            return facts.DestinationFacts(
                hypervisor_type='fake', hypervisor_version=self._version(db), arch='x86_64', machines=MACHINES, domain_types=('fake',),
                cpu_model=CPU, cpu_models=(CPU,), memory_free_mib=max(0, steps.memory_free(db, self.host)), storage=storage,
                storage_free={directory: self._free(db, identity) for directory, identity in storage.items()}, files_found=found,
                volumes_silent=tuple(f'the export {uri} does not answer' for uri in silent),
                backing_found=tuple(backing), occupied=occupied, migration_host=self.host, connection_uri=steps.SCHEME + self.host,
                listen_address='127.0.0.1')
        return self._look('check_can_live_migrate_destination', look)

    def check_can_live_migrate_source(self, guest):
        """See the contract."""
        def look(db, _):
            row = guests.get(db, self.host, guest.uuid)
            if row is None:
                raise exceptions.InstanceNotFound(f'no guest {guest.uuid} at {self.host}')
            return facts.SourceFacts(
                state=GuestState(row['state']), reason=PauseReason(row['reason']), job_active=jobs.active(db, guest.uuid) is not None,
                hypervisor_type='fake', hypervisor_version=self._version(db), arch='x86_64', machine=MACHINES[0], domain_type='fake',
                cpu_mode='custom', cpu_model=CPU, memory_mib=row['memory_mib'],
                disks=guests.disks_of(row['disks']), storage=self._storage(db))
        return self._look('check_can_live_migrate_source', look)

    # --- live migration ---

    def pre_live_migration(self, plan):
        """See the contract."""
        self._mine(plan.destination_host)
        return self._act('pre_live_migration', plan, lambda db, now: steps.pre_live_migration(db, self.host, plan, now))

    def live_migration(self, plan, prepared):
        """See the contract. A repeated call joins the job of the first, or tells its outcome once the guest has left."""
        self._mine(plan.source_host)

        def begin(db, now):
            history = self._record(db, now, 'live_migration', plan.instance_uuid, plan.migration_id, 'started', True)
            job_id = steps.start_job(db, self.host, plan, self.conf.fake, history, now)
            job = db.execute('SELECT history FROM job WHERE id = ?', (job_id,)).fetchone()
            if job['history'] != history:
                db.execute("UPDATE history SET result = 'joined', changed = 0 WHERE id = ?", (history,))
            return job_id, None
        later = self._enter('live_migration', plan.instance_uuid, plan.migration_id)
        job_id = self._effect('live_migration', plan.instance_uuid, plan.migration_id, begin)
        if 'die-during' in later:
            faults.die()
        job = self._watcher.wait(job_id, self)
        if job['state'] == 'active':
            raise exceptions.DriverError(f'the driver let go of {self.host}; the migration job of {plan.instance_uuid} goes on')
        self._faults.after('live_migration', later)
        return jobs.result_of(job)

    def abort_live_migration(self, instance_uuid):
        """See the contract."""
        def effect(db, now):
            job = jobs.active(db, instance_uuid)
            if job is None or job['source'] != self.host:
                return False, False
            jobs.fail(db, job, 'aborted', now, state='aborted')
            return True, True
        told = self._act('abort_live_migration', instance_uuid, effect)
        self._watcher.poke()
        return told

    def force_complete_live_migration(self, instance_uuid):
        """See the contract."""
        def effect(db, now):
            job = jobs.active(db, instance_uuid)
            if job is None or job['source'] != self.host:
                return False, False
            return True, jobs.force_complete(db, job, now)
        told = self._act('force_complete_live_migration', instance_uuid, effect)
        self._watcher.poke()
        return told

    def post_live_migration_at_destination(self, plan):
        """See the contract."""
        self._mine(plan.destination_host)
        return self._act('post_live_migration_at_destination', plan, lambda db, now: steps.post_live_migration_at_destination(
            db, self.host, plan, now))

    def post_live_migration_at_source(self, plan):
        """See the contract."""
        self._mine(plan.source_host)
        return self._act('post_live_migration_at_source', plan, lambda db, now: steps.post_live_migration_at_source(
            db, self.host, plan, now))

    def rollback_live_migration_at_source(self, plan):
        """See the contract."""
        self._mine(plan.source_host)
        return self._act('rollback_live_migration_at_source', plan, lambda db, now: steps.rollback_live_migration_at_source(
            db, self.host, plan, now))

    def rollback_live_migration_at_destination(self, plan):
        """See the contract."""
        self._mine(plan.destination_host)
        told = self._act('rollback_live_migration_at_destination', plan, lambda db, now: steps.rollback_live_migration_at_destination(
            db, self.host, plan, now))
        self._watcher.poke()
        return told

    # --- instances ---

    def create_instance(self, spec):
        """See the contract."""
        boot_files.check(boot_files.of(spec), self.conf.compute.boot_file_paths, self.host, os.path.normpath)
        return self._act('create_instance', spec.uuid, lambda db, now: instances.create_instance(db, self.host, spec, self._directory, now))

    def start_instance(self, instance_uuid):
        """See the contract."""
        return self._act('start_instance', instance_uuid, lambda db, now: instances.start_instance(db, self.host, instance_uuid, now))

    def stop_instance(self, instance_uuid, timeout):
        """See the contract. A guest that is asked stops at once unless it is deaf."""
        self._wait_while(self._ignores, instance_uuid, timeout)
        return self._act('stop_instance', instance_uuid, lambda db, now: instances.stop_instance(db, self.host, instance_uuid, now))

    def delete_instance(self, instance_uuid):
        """See the contract."""
        return self._act('delete_instance', instance_uuid, lambda db, now: instances.delete_instance(db, self.host, instance_uuid, now))

    # --- volumes ---

    def attach_volume(self, attachment):
        """See the contract."""
        return self._act('attach_volume', attachment.instance_uuid, lambda db, now: volumes.attach_volume(db, self.host, attachment, now))

    def detach_volume(self, attachment):
        """See the contract. A guest lets go at once, unless it is deaf or paused."""
        self._wait_while(self._keeps, attachment, self.conf.compute.detach_timeout)
        return self._act('detach_volume', attachment.instance_uuid, lambda db, now: volumes.detach_volume(db, self.host, attachment, now))

    def stalled(self):
        """See the contract."""
        return self._look('stalled', lambda db, _: tuple(row['uuid'] for row in volumes.stalled(db, self.host)))

    def resume_stalled(self, instance_uuid):
        """See the contract."""
        return self._act('resume_stalled', instance_uuid, lambda db, now: volumes.resume_stalled(db, self.host, instance_uuid, now))

    # --- how every method goes ---

    def _look(self, method, look):
        """A method without side effects: `look(db, now)` in a consistent view of the world."""
        self._faults_of_started().before(method)
        jobs.settle_due(self._store)
        with self._store.read() as db:
            self._check_up(db)
            return look(db, time.time())

    def _act(self, method, what, effect):
        """A method that changes something: `effect(db, now)` in one transaction, with its line in the history. what: a plan or a uuid."""
        uuid, migration = (what, '') if isinstance(what, str) else (what.instance_uuid, what.migration_id)
        later = self._enter(method, uuid, migration)
        answer = self._effect(method, uuid, migration, effect)
        self._faults.after(method, later)
        return answer

    def _enter(self, method, uuid, migration):
        try:
            return self._faults_of_started().before(method)
        except exceptions.DriverError as error:
            self._record_error(method, uuid, migration, error)
            raise

    def _effect(self, method, uuid, migration, effect):
        try:
            with jobs.acting(self._store) as (db, now):
                self._check_up(db)
                answer, changed = effect(db, now)
                if changed is not None:
                    self._record(db, now, method, uuid, migration, 'ok', changed)
                return answer
        except exceptions.MigratorError as error:
            self._record_error(method, uuid, migration, error)
            raise

    def _record(self, db, now, method, uuid, migration, result, changed):
        return db.execute('INSERT INTO history (at, process, host, method, uuid, migration, result, changed) '
                          'VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
                          (now, os.getpid(), self.host, method, uuid, migration, result, int(changed))).lastrowid

    def _record_error(self, method, uuid, migration, error):
        if self._store is not None:
            with self._store.write() as db:
                self._record(db, time.time(), method, uuid, migration, type(error).__name__, False)

    def _faults_of_started(self):
        if self._faults is None:
            raise exceptions.DriverError(f'the driver of {self.host} has not been started')
        return self._faults

    def _check_up(self, db):
        row = db.execute('SELECT down FROM host WHERE name = ?', (self.host,)).fetchone()
        if row is None or row['down']:
            raise exceptions.DriverError(f'the hypervisor of {self.host} does not answer')

    def _mine(self, host):
        """A step that names another host came to the wrong driver; refuse before anything is touched."""
        if host != self.host:
            raise exceptions.InvalidRequest(f'the plan is for {host}, this is {self.host}')

    def _ignores(self, uuid):
        """True while a guest that was asked to shut down goes on; raises what stop_instance raises."""
        with self._store.read() as db:
            self._check_up(db)
            row = instances.check_stop(db, self.host, uuid)
            return bool(row['deaf']) and row['state'] != GuestState.OFF

    def _keeps(self, attachment):
        """True while a guest that was asked to let go of a volume keeps it; raises what detach_volume raises."""
        with self._store.read() as db:
            self._check_up(db)
            return volumes.waits(db, self.host, attachment)

    @staticmethod
    def _wait_while(condition, what, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and condition(what):
            concurrency.native_sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def _storage(self, db):
        return {r['directory']: r['identity'] for r in db.execute('SELECT * FROM storage WHERE host = ? ORDER BY directory', (self.host,))}

    def _version(self, db):
        return db.execute('SELECT version FROM host WHERE name = ?', (self.host,)).fetchone()['version']

    def _free(self, db, identity):
        used = db.execute('SELECT coalesce(sum(size), 0) AS used FROM file WHERE identity = ?', (identity,)).fetchone()['used']
        return max(0, STORAGE_SIZE - used)

    def _strange_files(self, db, guest):
        """Files in the guest's directories here that are none of its disks."""
        disks = {os.path.basename(d.path) for d in guest.disks}
        return [f['name'] for f in guests.files_of(db, self.host, guest.uuid) if f['name'] not in disks]
