"""What must hold at every moment of a soak. Pure: judges what was read, with the clock handed in.

Each rule returns violations in words; the same violation gives the same words, so that it is told once.
"""
import collections
import dataclasses

from migrator.states import TERMINAL

TERMINAL_WORDS = frozenset(status.value for status in TERMINAL)


@dataclasses.dataclass(frozen=True)
class Row:
    """A migration as the database has it."""

    id: str
    instance: str
    source: str
    destination: str
    status: str
    phase: str
    step: str

    @property
    def terminal(self):
        """Whether it has ended."""
        return self.status in TERMINAL_WORDS

    @property
    def stand(self):
        """Where it stands; it goes on when this changes."""
        return self.status, self.phase, self.step


class Troubles:
    """What is being disturbed, and when it last was. Keys are names of hosts, 'broker', 'database' and 'conductors'."""

    def __init__(self):
        self._active, self._ended = collections.Counter(), {}

    def begin(self, key):
        """Something begins to disturb `key`."""
        self._active[key] += 1

    def end(self, key, now):
        """That is over; `key` works again."""
        self._active[key] -= 1
        self._ended[key] = now

    def touch(self, key, now):
        """Something disturbed `key` for a moment."""
        self._ended[key] = now

    def calm_since(self, keys, now):
        """Since when none of the keys is disturbed: `now` if one of them is."""
        keys = list(keys)
        return now if any(self._active[key] > 0 for key in keys) else max((self._ended.get(key, 0.0) for key in keys), default=0.0)


class Standstill:
    """No migration stands still for longer than a bound while everything that it needs is up."""

    #: A queued migration waits for others' ends, so it may wait for as much longer.
    QUEUE_FACTOR = 4

    def __init__(self, bound):
        """bound: seconds."""
        self._bound = bound
        self._since = {}

    def look(self, rows, troubles, now):
        """rows: all migrations, as Rows. Returns violations."""
        found, seen = [], {}
        for row in rows:
            if row.terminal:
                continue
            stand, since = self._since.get(row.id, (None, now))
            seen[row.id] = (row.stand, since if stand == row.stand else now)
            calm = troubles.calm_since((row.source, row.destination, 'broker', 'database', 'conductors'), now)
            bound = self._bound * (self.QUEUE_FACTOR if row.status == 'queued' else 1)
            if now - max(seen[row.id][1], calm) > bound:
                found.append(f'migration {row.id} of {row.instance} stands still at {" ".join(w for w in row.stand if w)} for more than '
                             f'{bound:g} s while {row.source} and {row.destination} are up')
        self._since = seen
        return found


def catalogue(before, after, where):
    """Compare the catalogue with the world for guests that nothing moved meanwhile.

    before, after: {guest: (host, number of its migrations, number of those that ended)}, read before and after the world.
    where: {guest: hosts at which it runs}.
    """
    return [f'the catalogue has {guest} at {said[0]}, it runs at {", ".join(sorted(where[guest])) or "no host"}'
            for guest, said in before.items()
            if said == after.get(guest) and said[1] == said[2] and guest in where and set(where[guest]) != {said[0]}]


def executed_once(calls):
    """Find migrations that a hypervisor was made to do more than once. calls: the migration of each job that was started."""
    return [f'migration {migration} was executed {times} times' for migration, times in collections.Counter(calls).items() if times > 1]


def journals(operations):
    """Look over what agents noted. operations: (host, op_id, method, state, reported) of all journals. For when all has ended."""
    places = collections.defaultdict(set)
    for host, op_id, *_ in operations:
        places[op_id].add(host)
    found = [f'operation {op_id} stands in the journals of {", ".join(sorted(hosts))}' for op_id, hosts in places.items() if len(hosts) > 1]
    for host, op_id, method, state, reported in operations:
        if state == 'running':
            found.append(f'{method} still runs at {host}: {op_id}')
        elif not reported:
            found.append(f'the end of {method} was never acknowledged to {host}: {op_id}')
    return found
