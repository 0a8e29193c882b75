"""Migration jobs of the simulated hypervisors, which go on whatever becomes of the agents: rows that are settled when they are due.

A job's end is computed when it starts or changes, and takes effect the first time that anyone reads the world afterwards, dated
back to when it was due. All functions but the first two work within a write transaction of the caller.
"""
import contextlib
import json
import time

from migrator import exceptions
from migrator.compute.drivers.fake import guests, simulation
from migrator.states import GuestState, PauseReason


@contextlib.contextmanager
def acting(store):
    """A write transaction in which all that was due has happened; gives the connection and the time."""
    with store.write() as db:
        now = time.time()  # after the write lock was got, so that times rise with transactions
        settle(db, now)
        yield db, now


def settle_due(store):
    """Let what is due take effect; only a read when nothing is. Every look at the world begins with it."""
    with store.read() as db:
        waits = due(db, time.time())
    if waits:
        with acting(store):
            return


def copy_of(job):
    """The arithmetic of a job's row."""
    return simulation.Copy(job['memory'], job['disk'], job['bandwidth'], job['dirty_rate'], job['minimum'], job['paused_after'])


def active(db, uuid):
    """The running job of a guest, None if there is none."""
    return db.execute("SELECT * FROM job WHERE uuid = ? AND state = 'active'", (uuid,)).fetchone()


def due(db, now):
    """True when a job waits to be settled."""
    return db.execute("SELECT 1 FROM job WHERE state = 'active' AND ends <= ? LIMIT 1", (now,)).fetchone() is not None


def settle(db, now):
    """Let every job that is due take its effect."""
    if due(db, now):
        for job in db.execute("SELECT * FROM job WHERE state = 'active' AND ends <= ? ORDER BY ends", (now,)).fetchall():
            _complete(db, job)


def start(db, plan, copy, destination, history, now):
    """Start a job of a guest that runs here: the destination has it as incoming from now on. Returns the job's id."""
    row = guests.get(db, plan.source_host, plan.instance_uuid)
    db.execute('INSERT INTO guest (host, uuid, name, state, memory_mib, vcpus, disks, persistent, managed, spec, dirty_rate, deaf, '
               "migration) VALUES (?, ?, ?, 'incoming', ?, ?, ?, 0, ?, ?, ?, ?, ?)",
               (destination, row['uuid'], row['name'], row['memory_mib'], row['vcpus'], row['disks'], row['managed'], row['spec'],
                row['dirty_rate'], row['deaf'], plan.migration_id))
    length = copy.duration()
    return db.execute(
        'INSERT INTO job (uuid, source, destination, migration, copied, started, ends, memory, disk, bandwidth, dirty_rate, minimum, '
        'user_paused, history) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
        (row['uuid'], plan.source_host, destination, plan.migration_id, json.dumps(list(plan.copy)), now,
         None if length is None else now + length, copy.memory, copy.disk, copy.bandwidth, copy.dirty_rate, copy.minimum,
         int(row['state'] == GuestState.PAUSED), history)).lastrowid


def force_complete(db, job, now):
    """Pause the guest so that the job ends in time; False if it is paused already."""
    if job['paused_after'] is not None or job['user_paused']:
        return False
    guests.set_state(db, job['source'], job['uuid'], GuestState.PAUSED, PauseReason.MIGRATION, now)
    db.execute('UPDATE job SET paused_after = ? WHERE id = ?', (now - job['started'], job['id']))
    job = active(db, job['uuid'])
    db.execute('UPDATE job SET ends = ? WHERE id = ?', (job['started'] + copy_of(job).duration(), job['id']))
    return True


def fail(db, job, error, now, state='failed', leave_incoming=False):
    """End a job without a move. A guest that was paused to converge stays paused: that is what the rollback at the source is for."""
    if not leave_incoming:
        db.execute("DELETE FROM guest WHERE host = ? AND uuid = ? AND state = 'incoming'", (job['destination'], job['uuid']))
    _end(db, job, state, error, now)


def _complete(db, job):
    """The guest stops at the source, its last writes are copied, and it goes on at the destination; the source forgets it."""
    ends, uuid = job['ends'], job['uuid']
    row = guests.get(db, job['source'], uuid)
    if row['state'] == GuestState.RUNNING:
        stops = max(job['started'], ends - (copy_of(job).downtime() or 0.0))
        guests.set_state(db, job['source'], uuid, GuestState.PAUSED, PauseReason.MIGRATION, stops)
    guests.complete_copy(db, job, json.loads(job['copied']))
    db.execute('DELETE FROM guest WHERE host = ? AND uuid = ?', (job['source'], uuid))
    if job['user_paused']:
        guests.set_state(db, job['destination'], uuid, GuestState.PAUSED, PauseReason.USER, ends)
        db.execute('UPDATE guest SET writes = ? WHERE host = ? AND uuid = ?', (row['writes'], job['destination'], uuid))
    else:
        guests.set_state(db, job['destination'], uuid, GuestState.RUNNING, PauseReason.NONE, ends)
    db.execute('UPDATE guest SET persistent = 1 WHERE host = ? AND uuid = ?', (job['destination'], uuid))
    _end(db, job, 'completed', '', ends)


def _end(db, job, state, error, now):
    db.execute('UPDATE job SET state = ?, error = ?, finished = ? WHERE id = ?', (state, error, now, job['id']))
    db.execute('UPDATE history SET result = ? WHERE id = ?', (state, job['history']))


def result_of(job):
    """What live_migration returns or raises for a job's row that has ended."""
    if job['state'] == 'aborted':
        raise exceptions.MigrationAborted(f'the migration of {job["uuid"]} was aborted')
    if job['state'] != 'completed':
        raise exceptions.DriverError(job['error'])
    copy = copy_of(job)
    last = copy.at(job['finished'] - job['started'])
    return {'downtime_ms': int((copy.downtime() or 0.0) * 1000), 'elapsed_ms': last.elapsed_ms, 'memory_processed': last.memory_processed,
            'disk_processed': last.disk_processed, 'iteration': last.iteration}
