"""The take-over of another array's LUN (seed 001: migrate_volume_target and complete_migration_target).

The remote LUN is served under this array's own export while it is mirrored to a local file; each write goes to both. When the mirror is
ready, the marker `local is complete` is made durable, and only then does the array switch to the local file. A daemon that starts without
the marker mirrors again from the remote, which has every write; with it, it serves the local file, which has every write too, for
from readiness on no write was acknowledged before both had it.
"""
import dataclasses
import time

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.volume.qmp import ArraySilent

LOG = log.getLogger(__name__)

#: Seconds between two looks at a mirror.
INTERVAL = 0.2

replace = dataclasses.replace


class Takeover:
    """Waits for the end of one take-over, and looks after the marker.

    open_array: a context manager that gives an Array. records: Records. locked: a context manager, held while the LUN's record is
    changed. patience: seconds for which an array that does not answer is waited for. stopping: a native Event, set when the agent ends.
    """

    def __init__(self, open_array, records, locked, patience, stopping, clock=time.monotonic):
        self._open_array = open_array
        self._records = records
        self._locked = locked
        self._patience = patience
        self._stopping = stopping
        self._clock = clock

    def complete(self, pool, lun):
        """Return when the LUN needs nothing of its remote any more. Raises DriverError when the mirror failed, the array stays silent, or
        the agent ends; then the LUN is served as before, and a repetition goes on."""
        heard = self._clock()
        while True:
            try:
                if self._look(pool, lun):
                    return
                heard = self._clock()
            except ArraySilent:
                if self._clock() - heard > self._patience:
                    raise
            if self._stopping.wait(INTERVAL):
                raise exceptions.DriverError(f'the agent stops; the take-over of {lun} goes on without it')

    def _look(self, pool, lun):
        """Take the take-over one step on; True when it is over."""
        with self._locked(pool, lun), self._open_array() as array:
            record = self._records.get(pool, lun)
            if record is None:
                raise exceptions.LunNotFound(f'there is no LUN {lun} in pool {pool}')
            job = array.job(record)
            if record.mirror is None:
                return self._tidy(array, record, job)
            if job is None:
                return self._without_job(array, record)
            if job['status'] == 'concluded':
                return self._concluded(array, record, job)
            if job['ready'] and job['io-status'] == 'ok' and job['status'] == 'ready':
                self._records.put(replace(record, mirror=replace(record.mirror, local_is_complete=True)))
                array.switch(record)
            return False

    def _without_job(self, array, record):
        """The daemon was restarted, or somebody ended the job. With the marker the local file is served; without it, mirrored again."""
        if record.mirror.local_is_complete and not array.serves_remote(record):
            return self._settle(array, record, None)
        array.bring_back(self._withdraw(record))
        return False

    def _concluded(self, array, record, job):
        error = job.get('error', '')
        if not error and not array.serves_remote(record):
            return self._settle(array, record, job)
        self._withdraw(record)
        array.dismiss(record)
        raise exceptions.DriverError(f'the mirror of {record.name} failed: {error or "it was ended before the switch"}')

    def _withdraw(self, record):
        """The local file has missed something, or may have: take back the word that it is complete, before anything else."""
        if not record.mirror.local_is_complete:
            return record
        return self._records.put(replace(record, mirror=replace(record.mirror, local_is_complete=False)))

    def _settle(self, array, record, job):
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
