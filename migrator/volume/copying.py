"""The agent's side of the host copy: runs the copier, keeps checkpoints, passes on rates, tells of progress, and ends what is cancelled.

A copy is known by its migration's id, which also names its checkpoint in the agent's state directory. The checkpoint is written by the
copier when the destination was flushed; a copy that was interrupted, by whatever died, goes on behind it when it is asked for again.
So does one that has lost the connection to an array, for as long as the patience lasts: an array that is started again costs a few seconds.
A checkpoint is of two named LUNs and a size, and one of others is not used. No copier outlives its agent, and no two work on one
copy (see `migrator.volume.copier`).

Methods that say so block, and are for native threads, like those of drivers; the others return at once and may be called from anywhere.
"""
import contextlib
import dataclasses
import json
import os
import re
import signal
import time
import urllib.parse

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.rpc import facts as rpc_facts
from migrator.rpc import volume_facts as facts
from migrator.states import OperationState
from migrator.volume import copier_path, durable
from migrator.volume.child import Child

LOG = log.getLogger(__name__)

#: The Python that has libnbd's binding: Debian's own.
INTERPRETER = '/usr/bin/python3'

#: How many chunks of half a MiB are compared where sampling is enough.
SAMPLES = 256

#: Seconds before a copy that has lost an array is begun again.
AGAIN_SECONDS = 1.0

#: errno of a full file system or quota, as NBD passes them on.
_FULL = (28, 122)


@dataclasses.dataclass(frozen=True)
class End:
    """One end of a copy. uri: its export; name: what it is, whatever its address (host@backend#pool/lun); credentials: directory of the
    x509 files for it, '' without TLS."""

    uri: str
    name: str
    credentials: str = ''

    @property
    def address(self):
        """What the copier connects to."""
        return f'{self.uri}?tls-certificates={urllib.parse.quote(self.credentials)}' if self.credentials else self.uri


#: What a copy may leave behind: its checkpoint, a new one that was not finished, its lock.
_KEPT = re.compile(r'copy-(?P<id>[0-9a-f-]{36})\.json(\.new|\.lock)?')


class _Job:
    """What runs for one migration. Changed under the lock of Copying only, but for the progress, which is replaced whole."""

    def __init__(self, rate):
        self.rate = rate
        self.child = None
        self.progress = facts.Progress(active=True)
        self.ending = None             # the exception that the job is to end with
        self.ended = concurrency.native_event()
        self.moved = 0                 # bytes, by copiers that have lost an array


class Copying:
    """The copies and comparisons of one agent. folder: where checkpoints are; begin: starts a program, Child but for tests."""

    def __init__(self, folder, begin=Child, clock=time.monotonic, patience=60.0):
        """patience: seconds without any answer, or without an array that was lost, after which a copy is given up."""
        self._folder = os.path.abspath(folder)      # the copier has another working directory
        self._begin, self._clock, self._patience = begin, clock, patience
        self._lock = concurrency.native_lock()
        self._jobs = {}
        self._stopping = False
        os.makedirs(folder, mode=0o750, exist_ok=True)

    # --- these block ---

    def copy(self, migration_id, source, destination, rate=0, zeroed=False):
        """Copy, or go on with it; blocks. source, destination: End. rate: bytes a second, 0 is unlimited.

        zeroed: the caller made the destination for this copy, it reads as zeros but for what this copy wrote, and cannot say so itself
        (most exports can, and are asked). Returns {'bytes': moved by this run, 'seconds': that it took} once everything is flushed; again
        at once when it is repeated. Raises NoSpace, DriverError in words, MigrationAborted after `cancel`, AgentDraining after
        `stop`, AgentBusy while one runs; all but the first repetition go on behind what was flushed.
        """
        identity = f'{source.name} {destination.name}'
        words = ['copy', *_addresses(source, destination), self._checkpoint(migration_id), '--identity', identity]
        began = self._clock()
        last = self._run(migration_id, words + (['--zeroed'] if zeroed else []), rate)
        return {'bytes': last['moved'], 'seconds': round(self._clock() - began, 3)}

    def verify(self, migration_id, source, destination, how='sampled', rate=0):
        """Compare both ends; blocks. how: 'sampled' (some hundred places, the same ones at each repetition) or 'full'.

        What reads as zeros at both ends by their own word is not read. Returns {'digest': SHA-256 over what was compared, 'how'}. Raises
        DriverError where they differ, and otherwise as `copy`.
        """
        if how not in ('sampled', 'full'):
            raise exceptions.InvalidRequest(f'a verification is sampled or full, not {how!r:.40}')
        sampled = ['--samples', str(SAMPLES), '--seed', migration_id] if how == 'sampled' else []
        last = self._run(migration_id, ['verify', *_addresses(source, destination), *sampled], rate)
        if last['ended'] == 'different':
            raise exceptions.DriverError(f'{destination.name} differs from {source.name} at byte {last["offset"]}: the copy cannot be used')
        return {'digest': last['digest'], 'how': how}

    def reached(self, migration_id):
        """Tell how far a copy came by its checkpoint, 0 if there is none. Blocks."""
        try:
            with open(self._checkpoint(migration_id), encoding='utf-8') as stream:
                done = json.load(stream)['done']
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG.warning('the checkpoint of the copy of migration %s cannot be read; it will begin at zero: %s', migration_id, error)
            return 0
        return done if isinstance(done, int) else 0

    def recall(self, journal):
        """Add to the outcome of copies that were interrupted how far they came: {'done'}. journal: rpc.journal.Journal. Blocks. Repeatable.

        A conductor tells by it a copy that goes on, however often it is interrupted, from one that does not.
        """
        for operation in journal.unreported():
            if operation.method == 'copy_volume' and operation.state is OperationState.INTERRUPTED:
                journal.amend(operation.op_id, {'done': self.reached(operation.migration_id)})

    def forget(self, migration_id):
        """Remove the checkpoint, durably: what is copied next begins at zero. Call it *before* the destination is deleted. Blocks.
        Raises PreconditionFailed while a copy runs. Not there is success."""
        with self._lock:
            if migration_id in self._jobs:
                raise exceptions.PreconditionFailed(f'the volume of migration {migration_id} is being copied')
        path = self._checkpoint(migration_id)
        for name in (path, f'{path}.new', f'{path}.lock'):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        durable.sync(self._folder)

    def kept(self):
        """List the migrations whose copy has left anything here, and which are not copied now. Blocks. Raises DriverError."""
        with self._lock:
            running = set(self._jobs)
        try:
            found = [_KEPT.fullmatch(name) for name in os.listdir(self._folder)]
        except OSError as error:
            raise exceptions.DriverError(f'{self._folder} cannot be read: {error.strerror}') from error
        return sorted({match['id'] for match in found if match and rpc_facts.UUID.match(match['id'])} - running)

    def age(self, migration_id):
        """Tell for how many seconds nothing was written of a copy, by the wall clock; 0.0 if nothing is kept of it. Blocks."""
        path = self._checkpoint(migration_id)
        written = [os.stat(name).st_mtime for name in (path, f'{path}.new', f'{path}.lock') if os.path.exists(name)]
        return max(0.0, time.time() - max(written)) if written else 0.0

    # --- these return at once ---

    def running(self):
        """List the migrations that are being copied or compared."""
        with self._lock:
            return sorted(self._jobs)

    def progress(self, migration_id):
        """How far it is; inactive if nothing runs. `done` counts what is flushed, so it never goes back while the copy is gone on with."""
        with self._lock:
            job = self._jobs.get(migration_id)
            return job.progress if job else facts.Progress()

    def set_rate(self, migration_id, rate):
        """Change the limit of what runs; bytes a second, 0 is unlimited. Returns whether anything runs."""
        with self._lock:
            job = self._jobs.get(migration_id)
            if job is None:
                return False
            job.rate = rate
            child = job.child
        if child is not None:
            child.tell(_rate(rate))
        return True

    def cancel(self, migration_id):
        """Have it end with MigrationAborted; what was copied stays. Returns whether anything runs."""
        return self._end(migration_id, exceptions.MigrationAborted('the copy was cancelled'))

    def stop(self):
        """The agent is stopping: end everything with AgentDraining, and begin nothing any more. The checkpoints stay."""
        with self._lock:
            self._stopping = True
            jobs = list(self._jobs)
        for migration_id in jobs:
            self._end(migration_id, exceptions.AgentDraining('the agent is stopping; the copy goes on behind what was flushed'))

    # --- inside ---

    def _checkpoint(self, migration_id):
        if not re.fullmatch(rpc_facts.UUID, migration_id):
            raise exceptions.InvalidRequest(f'{migration_id!r:.80} is no id of a migration')
        return os.path.join(self._folder, f'copy-{migration_id}.json')

    def _end(self, migration_id, why):
        with self._lock:
            job = self._jobs.get(migration_id)
            if job is None:
                return False
            job.ending = job.ending or why
            job.ended.set()
            child = job.child
        if child is not None:
            child.kill()
        return True

    def _run(self, migration_id, words, rate):
        """Run a copier to its end. Returns what it said last; raises what went wrong."""
        job = _Job(rate)
        with self._lock:
            if self._stopping:
                raise exceptions.AgentDraining('the agent is stopping')
            if migration_id in self._jobs:
                raise exceptions.AgentBusy(f'migration {migration_id} is being copied or compared already')
            self._jobs[migration_id] = job
        try:
            LOG.info('%s of migration %s begins: %s to %s', words[0], migration_id, words[1], words[2])
            code, said, last = self._talk_on(job, words)
            LOG.info('%s of migration %s ended: %s', words[0], migration_id, last.get('ended') or f'exit code {code}')
        finally:
            with self._lock:
                del self._jobs[migration_id]
        if last.get('ended') in ('complete', 'different'):      # true whatever ended the process afterwards
            return {**last, 'moved': last.get('moved', 0) + job.moved}
        raise job.ending or _failure(code, said, last)

    def _talk_on(self, job, words):
        """Run copiers, each where the one before has lost an array, until one ends otherwise, or none came further for as long as the
        patience lasts. The first one must have reached both ends: an address that is wrong stays wrong. Returns what `_talk` does."""
        reached, until = 0, 0.0
        while True:
            code, said, last = self._talk(job, words)
            if not last.get('lost') or not job.progress.total or job.ending is not None:
                return code, said, last
            if not until or job.progress.done > reached:
                reached, until = job.progress.done, self._clock() + self._patience
                LOG.warning('the %s of a copy is lost, and looked for again: %s', last['end'], last['error'])
            if self._clock() >= until:
                return code, said, last
            job.ended.wait(AGAIN_SECONDS)

    def _talk(self, job, words):
        """Begin the program and take in what it says. Returns (exit code, its errors, the last line)."""
        rate = job.rate
        command = [INTERPRETER, copier_path(), *words, '--patience', str(self._patience), '--rate', str(rate),
                   '--parent', str(os.getpid())]
        try:
            child = self._begin(command)
        except OSError as error:
            raise exceptions.DriverError(f'the copier cannot be run: {error.strerror}') from error
        last, moved = {}, 0
        try:
            with self._lock:
                job.child = child
                ending = job.ending
            if ending is not None:
                child.kill()
            if job.rate != rate:              # it was changed before there was anybody to tell
                child.tell(_rate(job.rate))
            for line in child.lines():
                last = json.loads(line)
                if 'done' in last:
                    moved = last.get('moved', 0)
                    job.progress = facts.Progress(True, last['total'], last['done'], last['rate'], last['done'] == last['total'])
        except ValueError as error:
            raise exceptions.DriverError(f'the copier said what is no JSON: {line!r:.80}') from error
        finally:
            with self._lock:
                job.child = None
            code, said = child.end()
        if last.get('lost'):
            job.moved += moved
        return code, said, last


def _addresses(source, destination):
    if source.uri == destination.uri or source.name == destination.name:
        raise exceptions.InvalidRequest(f'{source.name} cannot be copied to itself')
    return source.address, destination.address


def _rate(rate):
    return json.dumps({'rate': rate}).encode()


def _failure(code, said, last):
    """Turn the end of a copier into the error that the conductor, and the operator, read."""
    where = {'source': 'the source: ', 'destination': 'the destination: '}.get(last.get('end'), '')
    if last.get('ended') == 'error':
        kind = exceptions.NoSpace if last['end'] == 'destination' and last['errno'] in _FULL else exceptions.DriverError
        return kind(f'the copy stopped; {where}{last["error"]}')
    if code == -signal.SIGALRM:
        return exceptions.DriverError('the copy stopped: an export did not answer in time')
    how = f'signal {-code}' if code < 0 else f'exit code {code}'
    return exceptions.DriverError(f'the copier ended with {how}{": " + said if said else ""}')
