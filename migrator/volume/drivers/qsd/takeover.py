"""The take-over of another array's LUN (seed 001: migrate_volume_target and complete_migration_target).

The remote LUN is served under this array's own export while it is mirrored to a local file; each write goes to both, but a flush
only to the remote. When the mirror is ready the array holds its clients back, writes what is under way, flushes the local file, and
stands there (`pending`). Only then is the marker `local is complete` made durable, and then the array switches to the local file and lets
the clients go on.
Without the marker a daemon that starts mirrors again from the remote, which has every write; with it, it serves the local file, which has
every write, flushed, for none is acknowledged between `pending` and the switch.

A LUN that moves to another pool of the same array goes the same way: its remote is the file that it comes from, which nobody uses.

Who waits at `pending` waits for the agent: one that starts, and each heartbeat, ends what an agent left there (`settle_all`).
"""
import dataclasses
import time

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.volume.array import DRAINED, job_id
from migrator.volume.qmp import ArraySilent, Refused

LOG = log.getLogger(__name__)

#: Seconds between two looks at a mirror.
INTERVAL = 0.2

#: Seconds between two looks at a job for which clients wait.
POLL = 0.01

replace = dataclasses.replace


class Takeover:
    """Waits for the end of one take-over, and looks after the marker.

    open_array: a context manager that gives an Array. records: Records. locked: a context manager, held while the LUN's record is
    changed. patience: seconds for which an array that does not answer is waited for. drain_seconds: for which it may take to hold clients
    back before other commands get their turn again. stopping: a native Event, set when the agent ends.
    """

    def __init__(self, open_array, records, locked, patience, drain_seconds, stopping, clock=time.monotonic):
        self._open_array = open_array
        self._records = records
        self._locked = locked
        self._patience = patience
        self._drain_seconds = drain_seconds
        self._stopping = stopping
        self._clock = clock

    def limit(self, array, record, rate):
        """Hold the mirror to a rate: first in the record, by which it is begun again. rate: bytes a second, 0 is no limit. Returns the
        Record."""
        if record.mirror is not None:
            if record.mirror.rate != rate:
                record = self._records.put(replace(record, mirror=replace(record.mirror, rate=rate)))
            array.limit_mirror(record)
        return record

    def complete(self, pool, lun, rate=0, interrupted=lambda: False):
        """Return when the LUN needs nothing of its remote any more. rate: the limit as it is now, in bytes a second, 0 is none: it may have
        been changed while no agent heard of it. interrupted: tells whether it is not wanted any more.

        Raises DriverError when the mirror failed, the array stays silent, or the agent ends; then the LUN is served as before, and a
        repetition goes on. Raises MigrationAborted when it is not wanted; the mirror goes on until it is cancelled, but never switches.
        """
        heard, wanted = self._clock(), rate
        while True:
            if interrupted():
                raise exceptions.MigrationAborted(f'the data of {lun} is not waited for any more')
            try:
                if self._look(pool, lun, wanted):
                    return
                heard, wanted = self._clock(), None
            except ArraySilent:
                if self._clock() - heard > self._patience:
                    raise
            if self._stopping.wait(INTERVAL):
                raise exceptions.DriverError(f'the agent stops; the take-over of {lun} goes on without it')

    def _look(self, pool, lun, rate=None):
        """Take the take-over one step on; True when it is over. rate: limit to set first, None leaves it as it is."""
        with self._locked(pool, lun), self._open_array() as array:
            record = self._records.get(pool, lun)
            if record is None:
                raise exceptions.LunNotFound(f'there is no LUN {lun} in pool {pool}')
            if rate is not None:
                record = self.limit(array, record, rate)
            job = array.job(record)
            if record.mirror is None:
                return self._tidy(array, record, job)
            if job is None:
                return self._without_job(array, record)
            if job['status'] == 'ready' and job['io-status'] == 'ok' and not self._stopping.is_set():
                job = self._drain(array, record)
            record, job = self._end(array, record, job)
            if job['status'] == 'concluded':
                return self._concluded(array, record, job)
            return False

    def _drain(self, array, record):
        """Let the array hold the clients back; returns the job, which is `pending` unless that takes too long."""
        self._records.put(record)       # on a disk that is full this fails before anybody waits, and not when the marker is due
        array.drain(record)
        return self._await(array, record, ('ready', 'waiting'))

    def _await(self, array, record, states):
        """Wait a while for the job to leave these states; returns it."""
        until = self._clock() + self._drain_seconds
        while (job := array.job(record)) is not None and job['status'] in states and self._clock() < until:
            concurrency.native_sleep(POLL)
        if job is None:
            raise exceptions.DriverError(f'somebody else has ended the mirror of {record.name}')
        return job

    def _end(self, array, record, job):
        """End a job that is `pending`: the marker, then the switch. A marker that a job has belied is withdrawn. Returns (Record, job)."""
        if job['status'] == 'pending':
            record = self._mark(array, record)
            try:
                array.switch(record)
            except Refused as error:
                self._give_up(array, record)
                raise exceptions.DriverError(f'the array does not switch to {record.name}: {error}') from error
            job = self._await(array, record, ('waiting', 'pending', 'aborting'))
        if job['status'] not in (*DRAINED, 'concluded') or job.get('error'):
            record = self._withdraw(record)
        return record, job

    def _mark(self, array, record):
        """Make it durable that the local file is complete; if that cannot be, clients go on at the remote. Returns the Record."""
        try:
            self._records.flush(record)
            return self._records.put(replace(record, mirror=replace(record.mirror, local_is_complete=True)))
        except exceptions.DriverError:
            self._give_up(array, record)
            raise

    def _give_up(self, array, record):
        """Let the clients, who wait, go on at the remote; but not before it is certain that there is no marker."""
        record = self._records.get(record.pool, record.name) or record
        self._withdraw(record)
        array.cancel_mirror(record)
        if self._await(array, record, ('waiting', 'pending', 'aborting'))['status'] == 'concluded':
            array.dismiss(record)
        array.look()

    def settle_all(self, array):
        """End what an agent left that died in the midst of a switch, and for which clients wait. For every start and heartbeat."""
        jobs = {number: status for number, status in array.jobs().items() if status in ('pending', 'concluded')}
        for record in self._records.look()[0] if jobs else ():
            if job_id(record) in jobs:
                try:
                    self.settle(array, record)
                except exceptions.DriverError as error:
                    LOG.error('the take-over of %s cannot be brought to an end: %s', record.name, error)

    def settle(self, array, record):
        """See that the marker is true and that nobody waits for an agent that is gone; returns the Record as it is then. How a job has
        failed is left for `complete` to tell. Only within a session, which nobody else has at the same time."""
        job = array.job(record) if record.mirror is not None else None
        if job is None or not (job['status'] == 'pending' or record.mirror.local_is_complete):
            return record
        record, _job = self._end(array, record, job)
        array.look()
        return record

    def _without_job(self, array, record):
        """The daemon was restarted, or somebody ended the job. With the marker the local file is served; without it, mirrored again."""
        if record.mirror.local_is_complete and not array.serves_remote(record):
            return self._finish(array, record, None)
        array.bring_back(self._withdraw(record))
        return False

    def _concluded(self, array, record, job):
        array.look()
        error = job.get('error', '')
        if not error and not array.serves_remote(record):
            return self._finish(array, record, job)
        self._withdraw(record)
        array.dismiss(record)
        raise exceptions.DriverError(f'the mirror of {record.name} failed: {error or "it was ended before the switch"}')

    def _withdraw(self, record):
        """The local file has missed something, or may have: take back the word that it is complete, before anything else."""
        if record.mirror is None or not record.mirror.local_is_complete:
            return record
        return self._records.put(replace(record, mirror=replace(record.mirror, local_is_complete=False)))

    def _finish(self, array, record, job):
        """The switch is done. The record says so before the traces of the job go: they are how a repetition knows of the switch."""
        record = self._records.put(replace(record, mirror=None))
        LOG.info('LUN %s is complete and served from pool %s alone', record.name, record.pool)
        return self._tidy(array, record, job)

    @staticmethod
    def _tidy(array, record, job):
        if job is not None and job['status'] == 'concluded':
            array.dismiss(record)
        array.drop_remote(record)
        return True

    def cancel(self, pool, lun, owner):
        """End a take-over that nobody was given yet: the mirror stops, and the remote is let go of. Returns the Record, or None."""
        deadline = self._clock() + self._patience
        while True:
            with self._locked(pool, lun), self._open_array() as array:
                record = self._records.get(pool, lun)
                if record is None:
                    return None
                if record.owner != owner:
                    raise exceptions.PreconditionFailed(f'LUN {lun} was made by {record.owner or "somebody else"}')
                if record.exports:
                    raise exceptions.PreconditionFailed(f'LUN {lun} is exported as {", ".join(record.exports)}; writes to it are wanted')
                if record.mirror is None or self._stopped(array, record):
                    array.drop_nodes(record)
                    array.drop_origin(record)
                    return self._records.put(replace(record, mirror=None))
            if self._clock() > deadline:
                raise exceptions.DriverError(f'the mirror of {lun} does not stop')
            concurrency.native_sleep(INTERVAL)

    @staticmethod
    def _stopped(array, record):
        job = array.job(record)
        if job is None:
            return True
        if job['status'] == 'concluded':
            array.dismiss(record)
            return True
        if job['status'] != 'aborting':
            array.cancel_mirror(record)
        return False
