"""The simulated array's driver: the contract of `migrator.volume.driver` over a world that outlives the agent.

The methods run in native threads. They log nothing and touch no green primitive; what they did is in the world's history.
"""
import contextlib
import time

from migrator import concurrency, config, exceptions
from migrator.rpc import volume_facts as facts
from migrator.simulated.faults import Faults
from migrator.states import LunState
from migrator.volume import driver
from migrator.volume.drivers.fake import blocks
from migrator.volume.drivers.fake.child import SimulatedChild
from migrator.volume.drivers.fake.world import Arrays

MIB = 1 << 20
#: Seconds between two looks at a mirror.
POLL_SECONDS = 0.02


class FakeArrayDriver(driver.VolumeDriver):
    """One simulated array, named host@backend in its world. Options: config.FAKE_ARRAY_OPTS."""

    options = config.FAKE_ARRAY_OPTS

    def __init__(self, conf, host, backend):
        super().__init__(conf, host, backend)
        self.name = f'{host}@{backend}'
        self.capabilities = ('thin', *(('take_over',) if conf.take_over != 'no' else ()), *(('move',) if conf.moves else ()))
        self._arrays = Arrays(conf.world)
        self._store = self._arrays.store
        self._faults = Faults(self._store, self.name, conf.faults)
        self._stopping = concurrency.native_event()
        self._unwanted = set()       # migrations that were interrupted

    def start(self):
        """See the contract."""
        self._stopping.clear()
        self._faults.start()
        with self._store.write() as db:
            blocks.add_array(db, self.name, dict.fromkeys(self.conf.pools, self.conf.capacity_mib * MIB))
            self._check_up(db)

    def stop(self):
        """See the contract. Calls that wait here raise DriverError; their mirrors go on."""
        self._stopping.set()
        self._faults.stop()

    # --- what is there ---

    def pools(self):
        """See the contract."""
        with self._look() as db:
            rows = db.execute('SELECT * FROM pool WHERE array = ? ORDER BY name', (self.name,)).fetchall()
            return tuple(facts.Pool(r['name'], r['total'], max(0, blocks.free(db, self.name, r['name']))) for r in rows)

    def list(self):
        """See the contract."""
        with self._look() as db:
            rows = db.execute('SELECT * FROM lun WHERE array = ? ORDER BY pool, name', (self.name,)).fetchall()
            return tuple(self._describe(db, row) for row in rows)

    def show(self, pool, lun):
        """See the contract."""
        with self._look() as db:
            row = blocks.get(db, self.name, pool, lun)
            return facts.Lun(pool, lun) if row is None else self._describe(db, row)

    def _describe(self, db, row):
        exports = tuple(facts.Export(e['name'], bool(e['writable']), blocks.users(db, self.name, e['name']))
                        for e in blocks.exports(db, self.name, row['pool'], row['name']))
        allocated = sum(1 for value in row['data'] if value) * blocks.BLOCK
        return facts.Lun(row['pool'], row['name'], LunState.MIRRORING if row['mirror'] else LunState.READY, row['size'], allocated, 'raw',
                         row['owner'], exports=exports, mirror=row['mirror'], locator={'lun': row['name']})

    # --- life of a LUN ---

    def create(self, pool, lun, size, owner):
        """See the contract."""
        if not facts.LUN.match(lun):
            raise exceptions.InvalidRequest(f'{lun!r:.80} is no name of a LUN')

        def effect(db, _now):
            blocks.make(db, self.name, pool, lun, size, owner)
            return {'lun': lun}
        return self._effect('create', lun, owner, effect)

    def delete(self, pool, lun, owner=''):
        """See the contract."""
        def effect(db, _now):
            row = blocks.get(db, self.name, pool, lun)
            if row is None:
                return {}
            if owner and row['owner'] != owner:
                raise exceptions.PreconditionFailed(f'LUN {lun} was not made by {owner}')
            if blocks.exports(db, self.name, pool, lun) or row['mirror']:
                raise exceptions.PreconditionFailed(f'LUN {lun} is {"being taken over" if row["mirror"] else "exported"}')
            blocks.remove(db, self.name, pool, lun)
            return {}
        return self._effect('delete', lun, owner, effect)

    def extend(self, pool, lun, size):
        """See the contract."""
        def effect(db, _now):
            row = self._known(db, pool, lun)
            if size < row['size']:
                raise exceptions.InvalidRequest(f'LUN {lun} has {row["size"]} bytes and cannot shrink to {size}')
            if row['mirror'] or any(e['writable'] for e in blocks.exports(db, self.name, pool, lun)):
                raise exceptions.PreconditionFailed(f'LUN {lun} is {"being taken over" if row["mirror"] else "exported for writing"}')
            if size - row['size'] > blocks.free(db, self.name, pool):
                raise exceptions.NoSpace(f'pool {pool} has no room for {size - row["size"]} bytes more')
            data = row['data'].ljust(-(-size // blocks.BLOCK), b'\0')
            db.execute('UPDATE lun SET size = ?, data = ? WHERE array = ? AND pool = ? AND name = ?', (size, data, self.name, pool, lun))
            return {}
        return self._effect('extend', lun, '', effect)

    def export(self, pool, lun, export, writable):
        """See the contract."""
        def effect(db, _now):
            row = self._known(db, pool, lun)
            known = db.execute('SELECT * FROM export WHERE array = ? AND name = ?', (self.name, export)).fetchone()
            if known is not None and (known['pool'], known['lun'], bool(known['writable'])) != (pool, lun, writable):
                raise exceptions.PreconditionFailed(f'export {export} is there already, in another mode or of another LUN')
            db.execute('INSERT INTO export (array, name, pool, lun, writable) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
                       (self.name, export, pool, lun, int(writable)))
            return facts.Connection(blocks.uri(db, self.name, export), writable, row['size'])
        return self._effect('export', lun, '', effect)

    def unexport(self, pool, lun, export, force=False):
        """See the contract."""
        def effect(db, _now):
            if blocks.users(db, self.name, export) and not force:
                raise exceptions.PreconditionFailed(f'export {export} is in use')
            db.execute('DELETE FROM export WHERE array = ? AND name = ? AND lun = ?', (self.name, export, lun))
            return {}
        return self._effect('unexport', lun, '', effect)

    # --- migration ---

    def migrate_volume(self, lun, target):
        """See the contract. Moves the LUN to another simulated array, if it can (option `moves`)."""
        if not self.conf.moves:
            return self._decline('migrate_volume', lun.name, target, (False, {}))
        self._wait(target.migration_id)
        there = array_of(target)

        def effect(db, _now):
            row = blocks.get(db, self.name, lun.pool, lun.name)
            if row is not None:
                if blocks.exports(db, self.name, lun.pool, lun.name):
                    raise exceptions.PreconditionFailed(f'LUN {lun.name} is exported')
                if blocks.free(db, there, target.pool) is None:
                    return False, {}
                blocks.make(db, there, target.pool, target.lun, target.size, target.migration_id)
                blocks.put(db, blocks.get(db, there, target.pool, target.lun), 0, row['data'])
                blocks.remove(db, self.name, lun.pool, lun.name)
            elif (blocks.get(db, there, target.pool, target.lun) or {'owner': ''})['owner'] != target.migration_id:
                raise exceptions.LunNotFound(f'there is no LUN {lun.name} in pool {lun.pool}')
            return True, {'locator': {'lun': target.lun}}
        return self._effect('migrate_volume', lun.name, target.migration_id, effect)

    def migrate_volume_target(self, lun, connection, target):
        """See the contract. At once or asynchronously, by the option `take_over`."""
        if self.conf.take_over == 'no' or not connection.writable or not blocks.is_simulated(connection.uri):
            return self._decline('migrate_volume_target', target.lun, target, (False, False, {}))
        at_once = self.conf.take_over == 'sync'
        if at_once:
            self._wait(target.migration_id)

        def effect(db, now):
            data, size = blocks.read(db, connection.uri)
            seconds = self._seconds(size, target.bandwidth)
            mirror = {} if at_once else {'mirror': connection.uri, 'began': now, 'ready_at': now + seconds}
            if blocks.make(db, self.name, target.pool, target.lun, target.size, target.migration_id, **mirror) and at_once:
                blocks.put(db, blocks.get(db, self.name, target.pool, target.lun), 0, data)
            return True, not at_once, {'locator': {'lun': target.lun}}
        return self._effect('migrate_volume_target', target.lun, target.migration_id, effect)

    def set_mirror_rate(self, pool, lun, bytes_per_second):
        """See the contract. What has arrived stays there; the rest takes its time by the new limit."""
        def effect(db, now):
            row = blocks.get(db, self.name, pool, lun)
            if row is None or not row['mirror']:
                return False
            blocks.pace(db, row, self._seconds(row['size'], bytes_per_second), now)
            return True
        return self._effect('set_mirror_rate', lun, '', effect)

    def _pace(self, target):
        with self._act() as (db, now):
            row = blocks.get(db, self.name, target.pool, target.lun)
            if row is not None and row['mirror']:
                blocks.pace(db, row, self._seconds(row['size'], target.bandwidth), now)

    def _seconds(self, size, limit):
        """How long a mirror takes. limit: bytes a second, 0 is none but the array's own."""
        rate = min(filter(None, (self.conf.bandwidth_mib * MIB, limit)))
        return max(self.conf.migration_seconds, size / rate)

    def complete_migration_target(self, target):
        """See the contract."""
        actions = self._faults.before('complete_migration_target')
        self._pace(target)
        while True:
            with self._act() as (db, now):
                row = blocks.get(db, self.name, target.pool, target.lun)
                if row is None:
                    raise exceptions.LunNotFound(f'there is no LUN {target.lun} in pool {target.pool}')
                if not row['mirror'] or blocks.settle(db, row, now):
                    blocks.note(db, now, self.name, 'complete_migration_target', target.lun, target.migration_id, 'ok')
                    break
            if self._stopping.wait(POLL_SECONDS):
                raise exceptions.DriverError(f'the agent stops; the take-over of {target.lun} goes on without it')
        self._faults.after('complete_migration_target', actions)
        return {}

    def cancel_migration_target(self, target):
        """See the contract."""
        def effect(db, _now):
            row = blocks.get(db, self.name, target.pool, target.lun)
            if row is None:
                return {}
            if row['owner'] != target.migration_id:
                raise exceptions.PreconditionFailed(f'LUN {target.lun} was not made by {target.migration_id}')
            if blocks.exports(db, self.name, target.pool, target.lun):
                raise exceptions.PreconditionFailed(f'LUN {target.lun} is exported; writes to it are wanted')
            blocks.remove(db, self.name, target.pool, target.lun)
            return {}
        return self._effect('cancel_migration_target', target.lun, target.migration_id, effect)

    def progress(self, pool, lun):
        """See the contract."""
        try:
            with self._look() as db:
                row = blocks.get(db, self.name, pool, lun)
        except exceptions.MigratorError:        # best effort by contract: what cannot be told is an empty Progress
            return facts.Progress()
        if row is None or not row['mirror']:
            return facts.Progress()
        part = min(1.0, (time.time() - row['began']) / max(0.001, row['ready_at'] - row['began']))
        return facts.Progress(True, row['size'], int(part * row['size']), self.conf.bandwidth_mib * MIB, part == 1.0)

    def copier(self, command):
        """Copy within the world what only the world knows."""
        source, destination = command[3:5]
        if not (blocks.is_simulated(source) and blocks.is_simulated(destination)):
            return None
        return SimulatedChild(self._store, command, self._faults, self.conf.migration_seconds)

    # --- inside ---

    def _known(self, db, pool, lun):
        row = blocks.get(db, self.name, pool, lun)
        if row is None:
            raise exceptions.LunNotFound(f'there is no LUN {lun} in pool {pool}')
        return row

    def _check_up(self, db):
        if not db.execute('SELECT up FROM array WHERE name = ?', (self.name,)).fetchone()['up']:
            raise exceptions.DriverError(f'the simulated array {self.name} does not answer')

    @contextlib.contextmanager
    def _look(self):
        with self._store.read() as db:
            self._check_up(db)
            yield db

    @contextlib.contextmanager
    def _act(self):
        with self._store.write() as db:
            self._check_up(db)
            yield db, time.time()

    def _effect(self, method, lun, owner, effect):
        """Run a method: faults before, `effect(db, now)` in one transaction, faults after. Everything is in the history."""
        actions = self._faults.before(method)
        try:
            with self._act() as (db, now):
                result = effect(db, now)
                blocks.note(db, now, self.name, method, lun, owner, 'ok')
        except exceptions.MigratorError as error:
            self._note(method, lun, owner, error.kind)
            raise
        self._faults.after(method, actions)
        return result

    def _decline(self, method, lun, target, answer):
        actions = self._faults.before(method)
        self._note(method, lun, target.migration_id, 'declined')
        self._faults.after(method, actions)
        return answer

    def _note(self, method, lun, owner, result):
        with self._store.write() as db:
            blocks.note(db, time.time(), self.name, method, lun, owner, result)

    def interrupt(self, migration_id):
        """See the contract."""
        self._unwanted.add(migration_id)

    def _wait(self, migration_id):
        until = time.monotonic() + self.conf.migration_seconds
        try:
            while (left := until - time.monotonic()) > 0:
                if migration_id in self._unwanted:
                    raise exceptions.MigrationAborted('the data is not waited for any more')
                if self._stopping.wait(min(left, POLL_SECONDS)):
                    raise exceptions.DriverError('the agent stops')
        finally:
            self._unwanted.discard(migration_id)


def array_of(where):
    """Name the array of a Target or a LunRef."""
    return f'{where.host}@{where.backend}'
