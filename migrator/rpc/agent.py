"""The agents' half of call-then-spawn: accept an operation once, run it, and tell its outcome until somebody has heard.

A request may arrive never, once or twice, late, or after its successor. So it is judged against the journal and written there before it
runs; a second copy gets the state of the first. An operation that was running when the agent died is reported as interrupted and is
never begun again here: only the conductor, which can look at both hosts, decides what follows.
"""
import dataclasses
import hashlib
import json
import sqlite3
import threading
import time

from oslo_context import context as oslo_context
from oslo_log import log

from migrator import concurrency, exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import errors, facts, wire
from migrator.rpc.journal import Operation
from migrator.states import OperationState

LOG = log.getLogger(__name__)

#: Longest pause, in seconds, between two attempts to report.
LONGEST_PAUSE = 30.0

#: How many unacknowledged reports are repeated at once.
AT_ONCE = 8

#: Seconds between two clean-ups of the journal.
PRUNE_INTERVAL = 3600.0

#: Longest text of an error in a report.
LONGEST_ERROR = 4000


class OperationServer:
    """Runs the operations of one agent process.

    journal: rpc.journal.Journal. conductor: AgentToConductorAPI, or whatever has its operation_finished. host, process_id,
    host_boot_id: who we are. size: how many operations run at once. report_interval: seconds before the first repetition of an
    unacknowledged report. clock: the monotonic clock that `not_after` is compared with.
    """

    def __init__(self, journal, conductor, host, process_id, host_boot_id, size, report_interval, clock=time.monotonic):
        self._journal = journal
        self._conductor = conductor
        self._host = host
        self._process_id = process_id
        self._host_boot_id = host_boot_id
        self._report_interval = report_interval
        self._clock = clock
        self._pool = concurrency.Pool(size)
        self._accepting = threading.Lock()   # one request is judged at a time, or two copies would both find the journal empty
        self._changed = threading.Condition()
        self._running = {}                   # op_id -> method
        self._telling = 0                    # operations that ended and are being reported for the first time
        self._unreported = {}                # op_id -> Operation whose first report failed
        self._draining = False
        self._stopped = False
        self._pause = 0.0                    # seconds before the next repetition

    def start(self):
        """Begin to report what earlier processes left unreported."""
        with self._changed:
            self._unreported.update({o.op_id: o for o in concurrency.run_native(self._journal.unreported)})
        concurrency.spawn(self._report_for_ever)

    @property
    def draining(self):
        """True once the agent takes no new operations."""
        return self._draining

    def running(self, method=None):
        """List the op_ids that run now; of one method, or all."""
        with self._changed:
            return [op_id for op_id, name in self._running.items() if method in (None, name)]

    # --- accepting ---

    def accept(self, envelope, method, arguments, fn):
        """Judge a request, and run `fn` without arguments in a thread of its own if it is new and timely.

        envelope: facts.Envelope. method: its name. arguments: the request's other arguments, JSON values; with the method they tell,
        by their meaning, whether a known op_id is the same request. fn: returns the operation's result, a dict of JSON values. Returns
        the Report that acknowledges it. Raises InvalidRequest, AgentDraining, WrongProcess, StaleEpoch, RequestExpired, AgentBusy or
        JournalError: then it did not and will not run for this request.
        """
        digest = hashlib.sha256(json.dumps([method, envelope.migration_id, meaning(arguments)], sort_keys=True).encode()).hexdigest()
        with self._accepting:
            known = concurrency.run_native(self._journal.get, envelope.op_id)
            if known is not None:
                if known.digest != digest:
                    raise exceptions.InvalidRequest(f'{envelope.op_id} was used for another request ({known.method})')
                return self._report(known)
            self._judge(envelope)
            operation = Operation(envelope.op_id, envelope.migration_id, envelope.epoch, method, digest, self._process_id)
            concurrency.run_native(self._journal.begin, operation)
            with self._changed:
                self._running[operation.op_id] = method
            if not self._pool.try_spawn(rpc_context.bind(self._run), operation, fn):  # the system has no thread to give
                with self._changed:
                    del self._running[operation.op_id]
                concurrency.run_native(self._journal.forget, operation.op_id)
                raise exceptions.AgentBusy(f'{self._host} cannot start another thread')
        return self._report(operation)

    def _judge(self, envelope):
        if self._draining:
            raise exceptions.AgentDraining(f'{self._host} is stopping')
        if envelope.process_id not in ('', self._process_id):
            raise exceptions.WrongProcess(f'meant for process {envelope.process_id} of {self._host}, this is {self._process_id}')
        self.check_epoch(envelope.migration_id, envelope.epoch)
        self._check_attempt(envelope)
        if envelope.not_after and self._clock() > envelope.not_after:
            raise exceptions.RequestExpired(f'{envelope.op_id} arrived {self._clock() - envelope.not_after:.1f} s too late')
        if self._pool.running >= self._pool.size:
            raise exceptions.AgentBusy(f'{self._host} runs {self._pool.running} operations already')

    def check_epoch(self, migration_id, epoch):
        """Raise StaleEpoch if a request of a newer epoch of the migration was accepted."""
        highest = concurrency.run_native(self._journal.highest_epoch, migration_id)
        if epoch < highest:
            raise exceptions.StaleEpoch(f'epoch {epoch} of {migration_id} is outdated, {self._host} has seen {highest}')

    def _check_attempt(self, envelope):
        """Raise StaleEpoch for a debt's attempt that is older than one that was accepted. Its migration's epoch is the same for all."""
        owner, method, attempt = envelope.op_id.split('/')
        if owner == envelope.migration_id:
            return
        latest = concurrency.run_native(self._journal.latest_attempt, owner, method)
        if int(attempt) < latest:
            raise exceptions.StaleEpoch(f'attempt {attempt} of {method} is outdated, {self._host} has seen attempt {latest}')

    def get(self, op_id):
        """Give the Report of an operation from the journal; its state is UNKNOWN if there is none."""
        known = concurrency.run_native(self._journal.get, op_id)
        if known is not None:
            return self._report(known)
        return facts.Report(op_id=op_id, migration_id=op_id.partition('/')[0], host=self._host, process_id=self._process_id,
                            host_boot_id=self._host_boot_id)

    def _report(self, operation):
        return facts.Report(op_id=operation.op_id, migration_id=operation.migration_id, host=self._host, process_id=self._process_id,
                            host_boot_id=self._host_boot_id, state=operation.state, result=operation.result,
                            error_type=operation.error_type, error=operation.error)

    # --- running ---

    def _run(self, operation, fn):
        finished = None
        try:
            ended = self._outcome(operation, fn)
            if self._stopped:
                LOG.warning('%s ended after the agent did; the next process will report it as interrupted', operation.op_id)
                return
            finished = ended
            self._record(self._journal.finish, finished.op_id, finished.state, finished.result, finished.error_type, finished.error)
        finally:
            with self._changed:
                del self._running[operation.op_id]
                self._telling += finished is not None
                self._changed.notify_all()
        told = self._tell(finished)
        with self._changed:
            self._telling -= 1
            if told:
                self._pause = 0.0            # somebody answers: whatever else waits may go
            else:
                self._unreported[finished.op_id] = finished
                self._pause = max(self._pause, self._report_interval)
            self._changed.notify_all()

    def _record(self, write, *values):
        """Write to the journal. If the disk fails the outcome is still reported, for that is worth more than the record of it."""
        try:
            concurrency.run_native(write, *values)
        except (sqlite3.Error, exceptions.JournalError) as error:
            if self._stopped:                # closed just now; what is not in it is found out or told again by the next process
                LOG.warning('the journal was not written any more: %s', error)
            else:
                LOG.exception('the journal cannot be written')

    def _outcome(self, operation, fn):
        """Run the operation; gives it with its outcome. An error may carry facts for the report as its attribute `facts`."""
        LOG.info('%s begins', operation.op_id)
        started = self._clock()
        try:
            result = fn() or {}
            wire.check_size(f'the result of {operation.method}', result)
        except exceptions.MigratorError as error:
            LOG.warning('%s failed after %.3f s: %s: %s', operation.op_id, self._clock() - started, error.kind, error)
            return dataclasses.replace(operation, state=OperationState.FAILED, result=getattr(error, 'facts', {}),
                                       error_type=error.kind, error=str(error)[:LONGEST_ERROR])
        except Exception as error:
            LOG.exception('%s failed by a defect', operation.op_id)
            return dataclasses.replace(operation, state=OperationState.FAILED, error_type=exceptions.InternalError.__name__,
                                       error=f'{type(error).__name__}: {error}'[:LONGEST_ERROR])
        LOG.info('%s succeeded after %.3f s', operation.op_id, self._clock() - started)
        return dataclasses.replace(operation, state=OperationState.SUCCEEDED, result=result)

    # --- reporting ---

    def _tell(self, operation):
        """Report once; returns True if the conductor knows now, or never will. Errors that a repetition may cure are logged, and False."""
        context = oslo_context.get_current() or rpc_context.MigratorContext(migration_id=operation.migration_id, overwrite=False)
        try:
            with rpc_context.using(context):
                self._conductor.operation_finished(context, self._report(operation))
        except exceptions.NotFound as error:
            LOG.info('the conductor does not know %s (any more): %s', operation.op_id, error)
        except (exceptions.WrongHost, exceptions.InvalidRequest) as error:     # as it will be however often it is told
            LOG.error('the conductor refuses the outcome of %s, which is not told again: %s: %s', operation.op_id, error.kind, error)
        except (errors.NoAnswer, errors.NotDelivered, exceptions.Unavailable) as error:
            LOG.warning('the outcome of %s is not acknowledged yet: %s', operation.op_id, error)
            return False
        except exceptions.MigratorError as error:
            LOG.error('the conductor refuses the outcome of %s, it will be told again: %s: %s', operation.op_id, error.kind, error)
            return False
        if not self._stopped:
            self._record(self._journal.acknowledge, operation.op_id)
        return True

    def _report_for_ever(self):
        """Repeat what was not acknowledged, with growing pauses; and clean the journal up now and then.

        A few at once, and a round ends when none of these was acknowledged: then no conductor will answer the others either. What failed
        goes to the end of the line, so that one which is refused for ever holds up nobody.
        """
        prune_at = self._clock() + PRUNE_INTERVAL
        while not self._stopped:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._unreported, PRUNE_INTERVAL)
                self._changed.wait_for(lambda: self._stopped or not self._pause, self._pause)
            if self._clock() >= prune_at:
                prune_at = self._clock() + PRUNE_INTERVAL
                self._record(self._journal.prune)
            failed = self._repeat()
            with self._changed:
                self._pause = min(LONGEST_PAUSE, self._pause * 2 or self._report_interval) if failed else 0.0

    def _repeat(self):
        """Tell what is waiting, AT_ONCE at a time, as long as one of these is acknowledged; returns True if one was not."""
        waiting, failed = list(self._unreported.values()), False
        while waiting and not self._stopped:
            part, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
            told = [telling.wait() for telling in [concurrency.spawn(self._tell, operation) for operation in part]]
            with self._changed:
                for operation, heard in zip(part, told, strict=True):
                    del self._unreported[operation.op_id]
                    if not heard:
                        self._unreported[operation.op_id] = operation
            failed = failed or not all(told)
            if not any(told):
                break
        return failed

    # --- ending ---

    def drain(self):
        """Accept nothing new from now on."""
        self._draining = True

    def wait_idle(self, timeout, ignored=()):
        """Wait until nothing runs but methods named in `ignored`; returns False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: all(name in ignored for name in self._running.values()), timeout)

    def wait_told(self, timeout):
        """Wait until the conductor has acknowledged all that ended; returns False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._telling and not self._unreported, timeout)

    def stop(self):
        """End. What still runs is no longer waited for: whatever becomes of it, the next process reports it as interrupted."""
        self._draining = True
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for op_id in self.running():
            LOG.warning('%s is left running; the hypervisor may go on with it', op_id)


def meaning(value):
    """Give JSON values without what is empty in them, by which requests are compared.

    A conductor of a later version that repeats what an earlier one began names fields that this one did not know, with the value that
    stands for their absence. That is the same request, and to refuse it would be taken for its failure.
    """
    if isinstance(value, dict):
        return {key: said for key, part in value.items() if (said := meaning(part))}
    if isinstance(value, (list, tuple)):
        return [meaning(part) for part in value]
    return value
