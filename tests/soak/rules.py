"""What must hold at every moment of a soak. Pure: judges what was read, with the clock handed in.

Each rule returns violations in words; the same violation gives the same words, so that it is told once.
"""
import collections
import dataclasses

from migrator.states import TERMINAL, Status

TERMINAL_WORDS = frozenset(status.value for status in TERMINAL)
#: What every request and every migration needs; of the conductors one.
SERVERS = ('broker', 'database', 'conductors')
#: What lies between two looks counts as so many seconds at most: where looks come late the machine is busy, and daemons wait as well.
STRIDE = 5.0


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

    def __init__(self, settling=0.0):
        """settling: for how many seconds after a trouble its traces may last, see `settling`."""
        self._settling = settling
        self._active, self._ended = collections.Counter(), {}

    def begin(self, key):
        """Something begins to disturb `key`."""
        self._active[key] += 1

    def end(self, key, now):
        """That is over; `key` works again."""
        self._active[key] -= 1
        self._ended[key] = now

    def calm(self, keys, since, now):
        """Tell how many seconds, from the last trouble of any of the keys until now, lie behind `since`; none while one is disturbed.

        What was calm before a trouble that came and went in between is not counted, so `since` should not be long ago.
        """
        keys = list(keys)
        if any(self._active[key] > 0 for key in keys):
            return 0.0
        settled = max((self._ended[key] + self._settling for key in keys if key in self._ended), default=since)
        return max(0.0, now - max(since, settled))


def settling(conductor):
    """Tell for how many seconds after a trouble a migration may stand although all is up again. conductor: its options, as text or numbers.

    The claim of a conductor that was held or cut off has to run out, the next sweep finds what is due, and an operation whose end was not
    heard of meanwhile is asked for. Requests that were lost take longer than that; they are paid out of the bound.
    """
    return sum(float(conductor[name]) for name in ('claim_seconds', 'sweep_interval', 'poll_interval'))


class Standstill:
    """No migration stands still for longer than a bound of calm seconds: those in which everything that it needs was up.

    Its clock stands while there is trouble, and goes on afterwards; only a change of the migration sets it back.
    """

    #: A queued migration waits for others' ends, so it may wait for as much longer.
    QUEUE_FACTOR = 4

    def __init__(self, bound, stride=STRIDE):
        """bound: seconds. stride: see STRIDE."""
        self._bound, self._stride = bound, stride
        self._stood, self._looked = {}, None

    def look(self, rows, troubles, now):
        """rows: all migrations, as Rows. Returns violations."""
        found, seen, looked = [], {}, now if self._looked is None else self._looked
        for row in rows:
            if row.terminal:
                continue
            stand, calm = self._stood.get(row.id, (None, 0.0))
            gained = min(self._stride, troubles.calm((row.source, row.destination, *SERVERS), looked, now))
            seen[row.id] = (row.stand, calm + gained if stand == row.stand else 0.0)
            bound = self._bound * (self.QUEUE_FACTOR if row.status == 'queued' else 1)
            if seen[row.id][1] > bound:
                found.append(f'migration {row.id} of {row.instance} stands still at {" ".join(w for w in row.stand if w)} for more than '
                             f'{bound:g} s in which {row.source} and {row.destination} were up')
        self._stood, self._looked = seen, now
        return found


class Copies:
    """Every guest has one good copy: a running one or, while a migration of it is under way, one that is active in any state."""

    def __init__(self, bound, stride=STRIDE):
        """bound: seconds for which a guest may have none, for it is handed over between looks. stride: see STRIDE."""
        self._bound, self._stride = bound, stride
        self._without, self._looked = {}, None

    def look(self, guests, looks, moving, now):
        """looks: what hosts said, a moment apart, each {host: {guest: state}}. moving: guests under migration. Returns violations."""
        found, gained = [], 0.0 if self._looked is None else min(self._stride, now - self._looked)
        for guest in guests:
            twice = [host for host in looks[0] if all(states.get(host, {}).get(guest) == 'running' for states in looks)]
            if len(twice) > 1:
                found.append(f'two running copies of {guest}: {", ".join(twice)}')
            said = [states[guest] for one in looks for states in one.values() if guest in states]
            if 'running' in said or (said and guest in moving):
                self._without.pop(guest, None)
                continue
            self._without[guest] = self._without[guest] + gained if guest in self._without else 0.0
            if self._without[guest] > self._bound:
                found.append(f'no host has a good copy of {guest}' + (f', only one that is {said[-1]}' if said else ''))
        self._looked = now
        return found


def moving(*readings):
    """Name the guests of which a migration is, or may have been, under way. readings: as `catalogue` takes them, in order."""
    guests = set().union(*readings)
    return {guest for guest in guests
            if len({reading.get(guest) for reading in readings}) > 1 or any(reading[guest][1] != reading[guest][2] for reading in readings)}


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


def worth(outcomes, refused):
    """Tell if a soak has shown nothing, because next to nothing worked. outcomes: {status: migrations}. refused: {error: requests}."""
    ended = sum(count for status, count in outcomes.items() if status in TERMINAL_WORDS)
    completed = outcomes.get(Status.COMPLETED.value, 0)
    if not ended:
        said = ', '.join(f'{name} {count}' for name, count in sorted(refused.items()))
        return ['no migration has ended, so nothing was shown' + (f'; requests were refused: {said}' if said else '')]
    return [f'only {completed} of {ended} migrations that ended have completed'] if completed * 2 < ended else []
