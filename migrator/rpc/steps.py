"""What the endpoints of all agents have in common: turns, calls of the driver in native threads, fences, the journal's answers, audits."""
import contextlib
import threading

from migrator import concurrency, exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import facts, traces

#: How many traces one answer to `audit` has at most.
PART = 1000

#: Seconds for which the end of an operation may wait for a conductor before an audit tells of it: two of the longest pauses between two
#: reports (rpc.agent.LONGEST_PAUSE).
UNHEARD_SECONDS = 60.0


class Turns:
    """A lock per name, which exists only while somebody holds or wants it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._turns = {}  # name -> [lock, how many hold or want it]

    @contextlib.contextmanager
    def of(self, name):
        """Hold the lock of `name` for the length of a with block."""
        with self._lock:
            turn = self._turns.setdefault(name, [threading.Lock(), 0])
            turn[1] += 1
        try:
            with turn[0]:
                yield
        finally:
            with self._lock:
                turn[1] -= 1
                if not turn[1]:
                    del self._turns[name]

    @contextlib.contextmanager
    def if_free(self, name):
        """Hold the lock of `name` for the length of a with block, if nobody else does or wants to; gives whether it is held."""
        with self._lock:
            free = name not in self._turns
            if free:
                turn = self._turns[name] = [threading.Lock(), 1]
                turn[0].acquire()
        try:
            yield free
        finally:
            if free:
                turn[0].release()
                with self._lock:
                    turn[1] -= 1
                    if not turn[1]:
                        del self._turns[name]


def run_driver(fn, *args):
    """Run a method of the driver in a native thread, its log lines under the present context."""
    return concurrency.run_native(rpc_context.bind(fn), *args)


class StepEndpoint:
    """Base of the agents' endpoints.

    operations: rpc.agent.OperationServer. journal: rpc.journal.Journal. process_id: ours. The steps of one resource (guest, LUN) run one
    after another; what was overtaken while it waited for its turn is not run.
    """

    def __init__(self, operations, journal, process_id):
        self._operations = operations
        self._journal = journal
        self._process_id = process_id
        self.turns = Turns()

    def _start(self, name, envelope, arguments, resource, work, first=None):
        """Hand `work` to the operations, to be run when it is the turn of `resource`. Returns the acknowledgement for the wire.

        name: the method. envelope: as it came. arguments: the request's other arguments, as they came. work: gives the result, a dict.
        first: done once the request is accepted, before its turn comes: to end what it would else wait for.
        """
        read = facts.from_wire(facts.Envelope, envelope, 'envelope')

        def in_turn():
            if first is not None:
                first()
            with self.turns.of(resource):
                self._operations.check_epoch(read.migration_id, read.epoch)  # a newer request came while this one waited
                return work()
        return facts.to_wire(self._operations.accept(read, name, arguments, in_turn))

    def _fence(self, migration_id, epoch):
        """Refuse from now on what was sent under an older epoch of the migration. Raises InvalidRequest for what is no epoch."""
        if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch < 2 ** 62:
            raise exceptions.InvalidRequest('epoch must be a whole number, 0 or more')
        concurrency.run_native(self._journal.see_epoch, uuid_of(migration_id, 'migration_id'), epoch)

    def _operation(self, op_id):
        """Give the Report of an operation from the journal, for the wire."""
        if not isinstance(op_id, str) or not facts.OP_ID.match(op_id):
            raise exceptions.InvalidRequest(f'op_id: {op_id!r:.80} is not allowed')
        return facts.to_wire(self._operations.get(op_id))

    def _audit(self, marker, look):
        """Give a traces.Part for the wire: what `look` finds after `marker`, in order; operations that run now with the first one.

        With what `look` finds go the ends of operations that no conductor has acknowledged for a while.
        """
        if not isinstance(marker, str) or len(marker) > 2000:
            raise exceptions.InvalidRequest('marker must be a text')
        running = () if marker else tuple(self._operations.running())     # before the traces: what ends meanwhile has left none
        unheard = [traces.Trace('report', what=o.op_id, state=o.state.value, migration_id=o.migration_id)
                   for o in concurrency.run_native(self._journal.unheard, UNHEARD_SECONDS)]
        found = sorted((t for t in (*look(), *unheard) if t.key > marker), key=lambda t: t.key)
        part = tuple(found[:PART])
        return facts.to_wire(traces.Part(part, running, part[-1].key if len(found) > PART else ''))


def uuid_of(value, name):
    """Give `value` if it is a uuid. Raises InvalidRequest."""
    if not isinstance(value, str) or not facts.UUID.match(value):
        raise exceptions.InvalidRequest(f'{name}: {value!r:.80} is no uuid')
    return value
