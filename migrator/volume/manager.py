"""The volume agent's endpoint: every method of the contract, read from the wire, handed to a driver or the copier, answered in dataclasses.

The agent knows no workflow. It sees to four things of its own: the steps of one LUN run one after another, but for those that attach while
a take-over is on its way; what was overtaken while it waited for its turn is not run; a cancellation is not lost when it comes before the
copy exists; and every call of a driver, which blocks, runs in a native thread.
"""
import contextlib
import threading
import time

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import contract, facts, server, traces
from migrator.rpc import volume_facts as vf
from migrator.rpc.journal import KEEP_SECONDS
from migrator.rpc.steps import StepEndpoint, run_driver, uuid_of
from migrator.states import LunState
from migrator.volume.copying import End
from migrator.volume.mirrors import Mirrors
from migrator.volume.plans import connected, limited, owner_of, read_plan, target_of

LOG = log.getLogger(__name__)

#: Methods that move a volume's data, or may: while one runs, what an array says of the LUN may change by itself.
MOVING = ('migrate_volume', 'migrate_volume_target', 'complete_migration_target', 'copy_volume', 'verify_volume')

#: Those of them that the copier does.
COPYING = ('copy_volume', 'verify_volume')

#: The part of the time of a question (in its contract) that arrays have for their answers. A driver asks its array several things in turn,
#: and each may take up to the driver's own limit; all together they must leave time for the way back, so that who asked hears in words that
#: it is the array that is silent, instead of giving up on the agent.
ARRAYS_PART = 0.7

#: Seconds between two attempts to cancel a copy that has not appeared yet.
CANCEL_INTERVAL = 0.2


class VolumeManager(StepEndpoint):
    """RPC endpoint of a volume agent.

    backends: backends.Backends. copying: copying.Copying. operations: rpc.agent.OperationServer. journal: rpc.journal.Journal. host,
    process_id: ours. credentials: directory of x509 files for copies to backends that have none of their own; '' is none.
    """

    target = server.target(contract.VOLUME_VERSION)

    def __init__(self, backends, copying, operations, journal, host, process_id, credentials=''):
        super().__init__(operations, journal, process_id)
        self._credentials = credentials
        self._backends = backends
        self._copying = copying
        self._host = host
        self._lock = threading.Lock()
        self._mirrors = Mirrors()
        self._cancelling = set()  # migration ids whose copy is being looked for, to cancel it

    # --- questions ---

    @server.exposed(contract.VOLUME)
    def check_can_migrate_volume_target(self, context, plan):
        """Answer VolumeTargetFacts."""
        read = read_plan(plan)
        backend, where = self._backend(target_of(read)), read.target
        said = self._about(backend)
        try:
            driver = backend.driver()
            found, there = in_time('check_can_migrate_volume_target', lambda: self._offer(driver, where))
        except exceptions.DriverError as error:
            return facts.to_wire(vf.VolumeTargetFacts(offline=str(error), **said))
        occupied = ''
        if there is not None and there.state is not LunState.ABSENT and there.owner != read.migration_id:
            occupied = f'{target_of(read).place} has a LUN {where.lun} already, made by {there.owner or "somebody else"}'
        return facts.to_wire(vf.VolumeTargetFacts(pool=found.get(where.pool), occupied=occupied, tls=bool(self._keys(driver)), **said))

    @staticmethod
    def _offer(driver, where):
        """Give the pools by name, and the LUN that is there already, None where there is no such pool."""
        found = {pool.name: pool for pool in run_driver(driver.pools)}
        return found, run_driver(driver.show, where.pool, where.lun) if where.pool in found else None

    @server.exposed(contract.VOLUME)
    def check_can_migrate_volume_source(self, context, plan):
        """Answer VolumeSourceFacts."""
        where = read_plan(plan).source
        backend = self._backend(where)
        said = self._about(backend)
        try:
            driver = backend.driver()
            lun = in_time('check_can_migrate_volume_source', lambda: run_driver(driver.show, where.pool, where.lun))
        except exceptions.DriverError as error:
            return facts.to_wire(vf.VolumeSourceFacts(offline=str(error), **said))
        return facts.to_wire(vf.VolumeSourceFacts(lun=lun, tls=bool(driver.credentials), **said))

    @staticmethod
    def _about(backend):
        return {'driver': backend.kind, 'types': backend.types, 'capabilities': backend.capabilities, 'array_id': backend.array_id}

    @server.exposed(contract.VOLUME)
    def locate_volume(self, context, lun, migration_id, epoch):
        """Answer VolumeLocation, from the array at this moment, and refuse from now on what was sent under an older epoch."""
        where = facts.from_wire(vf.LunRef, lun, 'lun')
        # The fence comes first: what is accepted before it is seen below, what comes after it is refused.
        self._fence(migration_id, epoch)
        active = any(op_id.startswith(f'{migration_id}/') for method in MOVING for op_id in self._operations.running(method))
        found = in_time('locate_volume', lambda: run_driver(self._driver(where).show, where.pool, where.lun))
        return facts.to_wire(vf.VolumeLocation(found, active, self._process_id))

    @server.exposed(contract.VOLUME)
    def get_operation(self, context, op_id):
        """Answer Report from the journal."""
        return self._operation(op_id)

    @server.exposed(contract.VOLUME)
    def audit(self, context, marker):
        """Answer a Part: LUNs and exports of all arrays. DriverError if one does not answer: what is not seen must not look absent."""
        return self._audit(marker, self._traces)

    def _traces(self):
        found = []
        for backend in self._backends.all():
            for lun in run_driver(backend.driver().list):
                what = f'{backend.name}#{lun.pool}/{lun.name}'
                found.append(traces.Trace('lun', '', what, lun.state.value, lun.owner, self._host))
                found += [traces.Trace('export', '', f'{what}:{e.name}', '', owner_of(e.name), self._host) for e in lun.exports]
        return found

    @server.exposed(contract.VOLUME)
    def volume_progress(self, context, migration_id):
        """Answer Progress."""
        return facts.to_wire(self.progress(uuid_of(migration_id, 'migration_id')))

    def progress(self, migration_id):
        """Give the Progress of a migration's mirror or copy; inactive if there is none."""
        mirror = self._mirrors.of(migration_id)
        if mirror is None:
            return self._copying.progress(migration_id)
        try:
            found = run_driver(self._driver(mirror).progress, mirror.pool, mirror.lun)
        except exceptions.MigratorError as error:
            LOG.debug('no progress of migration %s: %s', migration_id, error)
            return vf.Progress()
        return self._mirrors.with_rate(migration_id, found)

    # --- interventions ---

    @server.exposed(contract.VOLUME)
    def cancel_volume_job(self, context, migration_id):
        """End the copy, or what an array is asked to move, and refuse it if it has not begun. Answers whether one was told to end now.
        A completion that is waited for goes on: the volume is at the target by then."""
        return self._cancel(uuid_of(migration_id, 'migration_id'))

    def _cancel(self, migration_id):
        concurrency.run_native(self._journal.abort, migration_id)
        if self._mirrors.interrupt(migration_id) or self._copying.cancel(migration_id):
            return True
        with self._lock:
            if self._is_copying(migration_id) and migration_id not in self._cancelling:
                self._cancelling.add(migration_id)
                concurrency.spawn(rpc_context.bind(self._cancel_when_it_appears), migration_id)
        return False

    def _is_copying(self, migration_id):
        return any(op_id.startswith(f'{migration_id}/') for name in COPYING for op_id in self._operations.running(name))

    def _cancel_when_it_appears(self, migration_id):
        """Cancel a copy that was about to begin when it was to be cancelled."""
        try:
            while self._is_copying(migration_id) and not self._copying.cancel(migration_id):
                time.sleep(CANCEL_INTERVAL)
        finally:
            with self._lock:
                self._cancelling.discard(migration_id)

    @server.exposed(contract.VOLUME)
    def set_copy_rate(self, context, migration_id, bytes_per_second):
        """Change the limit of a copy or a mirror that runs. Answers whether one does."""
        if not isinstance(bytes_per_second, int) or isinstance(bytes_per_second, bool) or not 0 <= bytes_per_second <= facts.MAX_BYTES:
            raise exceptions.InvalidRequest(f'bytes_per_second must be a whole number, 0 or more, not {bytes_per_second!r:.40}')
        mirror = self._mirrors.of(uuid_of(migration_id, 'migration_id'))
        if mirror is None:
            return self._copying.set_rate(migration_id, bytes_per_second)
        return in_time('set_copy_rate', lambda: run_driver(self._driver(mirror).set_mirror_rate, mirror.pool, mirror.lun, bytes_per_second))

    # --- life of a volume ---

    @server.exposed(contract.VOLUME)
    def create_volume(self, context, envelope, spec):
        """Make a LUN; it belongs to the workflow that asks for it."""
        read = facts.from_wire(vf.VolumeSpec, spec, 'spec')
        owner = facts.from_wire(facts.Envelope, envelope, 'envelope').migration_id
        return self._at(read.lun, 'create_volume', envelope, {'spec': spec}, lambda driver: {
            'locator': run_driver(driver.create, read.lun.pool, read.lun.lun, read.size, owner)})

    @server.exposed(contract.VOLUME)
    def delete_volume(self, context, envelope, lun):
        """Remove a LUN that nobody uses."""
        read = facts.from_wire(vf.LunRef, lun, 'lun')
        return self._at(read, 'delete_volume', envelope, {'lun': lun}, lambda driver: run_driver(driver.delete, read.pool, read.lun))

    @server.exposed(contract.VOLUME)
    def extend_volume(self, context, envelope, lun, size):
        """Grow a LUN."""
        read = facts.from_wire(vf.LunRef, lun, 'lun')
        if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= facts.MAX_BYTES or size % vf.SECTOR:
            raise exceptions.InvalidRequest(f'size must be whole sectors of {vf.SECTOR} bytes, not {size!r:.40}')
        return self._at(read, 'extend_volume', envelope, {'lun': lun, 'size': size},
                        lambda driver: run_driver(driver.extend, read.pool, read.lun, size))

    @server.exposed(contract.VOLUME)
    def export_attachment(self, context, envelope, attachment):
        """Make a LUN reachable for a guest."""
        read = facts.from_wire(vf.VolumeAttachment, attachment, 'attachment')
        return self._at(read.lun, 'export_attachment', envelope, {'attachment': attachment}, lambda driver: {
            'connection': facts.to_wire(run_driver(driver.export, read.lun.pool, read.lun.lun, read.export, read.writable))})

    @server.exposed(contract.VOLUME)
    def unexport_attachment(self, context, envelope, attachment):
        """End that."""
        read = facts.from_wire(vf.VolumeAttachment, attachment, 'attachment')
        return self._at(read.lun, 'unexport_attachment', envelope, {'attachment': attachment},
                        lambda driver: run_driver(driver.unexport, read.lun.pool, read.lun.lun, read.export, read.force))

    # --- migration: the source ---

    @server.exposed(contract.VOLUME)
    def migrate_volume(self, context, envelope, plan):
        """Seed 001, step 1: the source's driver moves the volume, or declines."""
        read = read_plan(plan)

        def work(driver):
            lun = run_driver(driver.show, read.source.pool, read.source.lun)
            with self._moving(driver, read):
                moved, update = run_driver(driver.migrate_volume, lun, limited(read))
            return {'moved': moved, 'model_update': update}
        return self._at(read.source, 'migrate_volume', envelope, {'plan': plan}, work)

    @server.exposed(contract.VOLUME)
    def export_volume(self, context, envelope, plan):
        """Make the source reachable for the target; writable, as a take-over needs it, unless the data is only read."""
        read, where = read_plan(plan), read_plan(plan).source
        return self._at(where, 'export_volume', envelope, {'plan': plan}, lambda driver: {
            'connection': facts.to_wire(run_driver(driver.export, where.pool, where.lun, read.export, not read.force_host_copy))})

    @server.exposed(contract.VOLUME)
    def unexport_volume(self, context, envelope, plan):
        """End that; PreconditionFailed while the target uses it."""
        read = read_plan(plan)
        return self._at(read.source, 'unexport_volume', envelope, {'plan': plan},
                        lambda driver: run_driver(driver.unexport, read.source.pool, read.source.lun, read.export))

    @server.exposed(contract.VOLUME)
    def delete_source_volume(self, context, envelope, plan):
        """End the migration's export and remove the LUN that the volume has left; PreconditionFailed while anybody uses it."""
        read, where = read_plan(plan), read_plan(plan).source

        def work(driver):
            run_driver(driver.unexport, where.pool, where.lun, read.export)
            return run_driver(driver.delete, where.pool, where.lun)
        return self._at(where, 'delete_source_volume', envelope, {'plan': plan}, work)

    # --- migration: the target's array ---

    @server.exposed(contract.VOLUME)
    def migrate_volume_target(self, context, envelope, plan):
        """Seed 001, step 2: the target's driver takes the volume over, or declines."""
        read, where = connected(plan)

        def work(driver):
            lun = vf.Lun(read.source.pool, read.source.lun, LunState.READY, read.size)
            with self._moving(driver, read):
                moved, migration_async, update = run_driver(driver.migrate_volume_target, lun, read.connection, limited(read))
            if moved and migration_async:
                self._mirrors.begin(read.migration_id, where)
            return {'moved': moved, 'migration_async': migration_async, 'model_update': update}
        return self._at(where, 'migrate_volume_target', envelope, {'plan': plan}, work)

    @server.exposed(contract.VOLUME)
    def complete_migration_target(self, context, envelope, plan):
        """Seed 001, step 4. Has a turn of its own: the LUN is attached and detached while this waits for the data."""
        read = read_plan(plan)
        where = target_of(read)

        def work(driver):
            self._mirrors.begin(read.migration_id, where)
            update = run_driver(driver.complete_migration_target, limited(read))
            self._mirrors.end(read.migration_id)
            return {'model_update': update}
        return self._at(where, 'complete_migration_target', envelope, {'plan': plan}, work, turn='completion')

    @server.exposed(contract.VOLUME)
    def cancel_migration_target(self, context, envelope, plan):
        """Undo a take-over that was not committed."""
        read = read_plan(plan)

        def work(driver):
            result = run_driver(driver.cancel_migration_target, read.target)
            self._mirrors.end(read.migration_id)
            return result
        return self._at(target_of(read), 'cancel_migration_target', envelope, {'plan': plan}, work)

    @contextlib.contextmanager
    def _moving(self, driver, plan):
        """Ask a driver to move a volume, unless that was cancelled; an abort that comes meanwhile reaches it."""
        with self._mirrors.asked(plan.migration_id, driver, target_of(plan) if plan.target.host == self._host else None):
            self._refuse_cancelled(plan.migration_id)       # behind `asked`: one that comes now is seen by one of both
            yield

    def _refuse_cancelled(self, migration_id):
        if concurrency.run_native(self._journal.aborted, migration_id):
            raise exceptions.MigrationAborted('cancelled before it began')

    # --- migration: the host copy ---

    @server.exposed(contract.VOLUME)
    def create_target_volume(self, context, envelope, plan):
        """Make the LUN of a host copy; it belongs to the migration."""
        read, where = read_plan(plan), target_of(read_plan(plan))
        return self._at(where, 'create_target_volume', envelope, {'plan': plan}, lambda driver: {
            'locator': run_driver(driver.create, where.pool, where.lun, read.target.size, read.migration_id)})

    @server.exposed(contract.VOLUME)
    def copy_volume(self, context, envelope, plan):
        """Copy from the source's export to one of the target's LUN, which stays until the copy was verified or removed."""
        read, where = connected(plan)

        def work(driver):
            ends = self._ends(driver, read, where)
            return run_driver(self._copying.copy, read.migration_id, *ends, read.bandwidth)
        return self._at(where, 'copy_volume', envelope, {'plan': plan}, work)

    @server.exposed(contract.VOLUME)
    def verify_volume(self, context, envelope, plan):
        """Compare both ends, and end the target's export if they are equal."""
        read, where = connected(plan)

        def work(driver):
            ends = self._ends(driver, read, where)
            result = run_driver(self._copying.verify, read.migration_id, *ends, read.verification, read.bandwidth)
            run_driver(driver.unexport, where.pool, where.lun, read.copy_export, True)
            run_driver(self._copying.forget, read.migration_id)
            return result
        return self._at(where, 'verify_volume', envelope, {'plan': plan}, work)

    def _ends(self, driver, plan, where):
        """Export the target's LUN, which this migration must have made, and give both Ends."""
        self._refuse_cancelled(plan.migration_id)
        there = run_driver(driver.show, where.pool, where.lun)
        if there.state is not LunState.READY or there.owner != plan.migration_id:
            raise exceptions.PreconditionFailed(f'{where.place} has no LUN {where.lun} that this migration made: it is {there.state.value}')
        to = run_driver(driver.export, where.pool, where.lun, plan.copy_export, True)
        ends = (plan.connection, f'{plan.source.place}/{plan.source.lun}'), (to, f'{where.place}/{where.lun}')
        return [End(there.uri, name, self._keys(driver) if there.tls else '') for there, name in ends]

    def _keys(self, driver):
        """Give the directory of x509 files with which copies to an array reach exports that want TLS."""
        return driver.credentials or self._credentials

    @server.exposed(contract.VOLUME)
    def delete_target_volume(self, context, envelope, plan):
        """Remove what create_target_volume made. A copy that still runs is ended, or this would wait for it."""
        read, where = read_plan(plan), target_of(read_plan(plan))

        def work(driver):
            run_driver(self._copying.forget, read.migration_id)
            if run_driver(driver.show, where.pool, where.lun).owner == read.migration_id:
                # By force: it is this copy's own, and an array may still count the copier that has just been ended.
                run_driver(driver.unexport, where.pool, where.lun, read.copy_export, True)
            return run_driver(driver.delete, where.pool, where.lun, read.migration_id)
        return self._at(where, 'delete_target_volume', envelope, {'plan': plan}, work,
                        first=lambda: self._cancel(read.migration_id))

    # --- for the heartbeat ---

    def jobs(self):
        """Name the migrations whose data this agent moves now."""
        return sorted({*self._mirrors.all(), *self._copying.running()})

    def kept_copies(self):
        """Name the migrations whose copy has left a checkpoint here, and which this agent does nothing for now."""
        busy = {op_id.partition('/')[0] for op_id in self._operations.running()}
        try:
            return tuple(migration for migration in run_driver(self._copying.kept) if migration not in busy)
        except exceptions.DriverError as error:
            LOG.warning('it is not known which copies have left a checkpoint here: %s', error)
            return ()

    def forget_copies(self, ended, unknown):
        """Remove what is kept of copies whose migrations have ended, or are unknown to the conductor and were not touched for as long as
        the journal keeps anything: they were purged. What cannot be removed is told of again."""
        for migration_id in (*ended, *unknown):
            try:
                if migration_id in unknown and run_driver(self._copying.age, migration_id) < KEEP_SECONDS:
                    continue
                run_driver(self._copying.forget, migration_id)
                LOG.info('migration %s is over; the checkpoint of its copy is removed', migration_id)
            except (exceptions.MigratorError, OSError) as error:
                LOG.warning('the checkpoint of the copy of migration %s is not removed yet: %s', migration_id, error)

    # --- inside ---

    def _backend(self, where):
        if where.host != self._host:
            raise exceptions.InvalidRequest(f'meant for {where.host}, this is {self._host}')
        return self._backends.get(where.backend)

    def _driver(self, where):
        return self._backend(where).driver()

    def _at(self, where, name, envelope, arguments, work, turn='', first=None):
        """Start a step at a LUN (LunRef): `work` gets the backend's driver. turn: '' is the LUN's own. first: see _start."""
        self._backend(where)             # what cannot be is refused at once
        resource = f'{where.backend}#{where.pool}/{where.lun} {turn}'
        return self._start(name, envelope, arguments, resource, lambda: work(self._driver(where)), first)


def in_time(question, look):
    """Give what `look` returns, which asks an array, while the one who put the question of that name waits for an answer.

    Raises what it raises, and DriverError if that takes longer; the driver then gives up by its own limits, and nobody hears what it says.
    """
    patience = ARRAYS_PART * contract.VOLUME[question].timeout
    try:
        return concurrency.spawn(rpc_context.bind(look)).wait(patience)
    except TimeoutError:
        raise exceptions.DriverError(f'the array does not answer (it was given {patience:g} s)') from None
