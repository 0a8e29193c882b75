"""What the model remembers: the conductor's row and tasks, the messages under way, the agents' journals, how the hosts are. Immutable.

Times are not modelled: whatever may time out may do so at any moment, and a silence may be found short or long.
"""
import typing

from migrator.conductor.cursor import Cursor

SOURCE, DESTINATION = 'source', 'destination'
ROLES = (SOURCE, DESTINATION)

#: How a host is: its agent answers; is dead (the hypervisor goes on); is cut off (agent and hypervisor go on); refuses all new work;
#: has lost its power, so that nothing goes on there.
UP, DEAD, CUT, BUSY, DARK = 'up', 'dead', 'cut', 'busy', 'dark'
#: Where no agent works.
LIFELESS = (DEAD, DARK)


class Broken(Exception):
    """An invariant does not hold. name: which. The text says in which way."""

    def __init__(self, name, how):
        super().__init__(f'{name}: {how}')
        self.name = name


class Task(typing.NamedTuple):
    """Something that a conductor has decided and stored, and not done yet.

    kind: call | send | poll | observe | answers | abort. epoch: of the transaction that decided it. half: what one host has said already;
    `answers` has in full what both said, and waits to be stored.
    """

    kind: str
    step: str = ''
    attempt: int = 0
    epoch: int = 0
    half: tuple = ()


class Request(typing.NamedTuple):
    """A request under way to an agent."""

    role: str
    method: str
    attempt: int
    epoch: int


class Operation(typing.NamedTuple):
    """A line of an agent's journal.

    state: accepted | running (the hypervisor's job is at work) | succeeded | failed | refused (nothing was touched) | interrupted.
    result: what it returned, in the words of its world.
    """

    role: str
    method: str
    attempt: int
    state: str
    epoch: int
    result: str = ''


class State(typing.NamedTuple):
    """Everything. world: what is true of guest and disks, as the workflow's world has it. catalogue: what the conductor believes of it."""

    cursor: Cursor
    world: tuple
    catalogue: tuple
    epoch: int = 1
    tasks: frozenset = frozenset()
    requests: frozenset = frozenset()
    reports: frozenset = frozenset()
    journal: frozenset = frozenset()
    seen: tuple = (0, 0)            # highest epoch that each agent's journal has (source, destination)
    hosts: tuple = (UP, UP)
    debts: frozenset = frozenset()
    locked: bool = True
    faults: int = 0                 # how many faults have happened
    aborted: bool = False
    in_turn: bool = False           # of its debts, each waits for those before it
    lost: bool = False              # it ended when both hosts were off, so that nobody knows where the guest is
    attested: frozenset = frozenset()   # hosts without power of which somebody has said so
    told: frozenset = frozenset()       # what the conductor has stored of what operations returned: (method, result)

    def host(self, role):
        """How a host is."""
        return self.hosts[ROLES.index(role)]

    def with_host(self, role, how):
        """The same, but for how a host is."""
        return self._replace(hosts=put(self.hosts, role, how))

    def answers(self, role):
        """True if a host answers questions."""
        return self.host(role) in (UP, BUSY)

    def see(self, role, epoch):
        """An agent refuses from now on what is older than an epoch."""
        return self._replace(seen=put(self.seen, role, max(epoch, self.seen[ROLES.index(role)])))


def put(pair, role, value):
    """Change the source's or the destination's half of a pair."""
    return (value, pair[1]) if role == SOURCE else (pair[0], value)


class Canonical:
    """Makes states that behave alike one, by forgetting what can make no difference any more. Call it with a state.

    A request that its agent knows already, or that is outdated, will do nothing when it arrives. A report of an operation that the
    workflow has left behind will be dropped, as will the answer of a poll for it. Of the journal, what nobody will ask for is
    forgotten; of epochs only the order counts. Most steps leave messages in a way that an earlier one has left them in, so what was
    forgotten of those is looked up; equal parts are the same object, which can be recognized without being compared.
    """

    def __init__(self):
        self._relevant = {}             # what is said, and to whom -> what of it can make a difference
        self._same = {}

    def __call__(self, state):
        """Give the state that stands for all that behave like this one."""
        cursor = state.cursor
        said = (cursor.step, cursor.attempt, state.epoch, state.seen, state.tasks, state.requests, state.reports, state.journal)
        relevant = self._relevant.get(said)
        if relevant is None:
            relevant = self._relevant[said] = tuple(self._same.setdefault(part, part) for part in forget(*said))
        epoch, seen, tasks, requests, reports, journal = relevant
        ended = cursor.status.terminal
        return state._replace(attested=NOBODY if ended else state.attested, aborted=state.aborted or ended,
                              epoch=epoch, seen=seen, tasks=tasks, requests=requests, reports=reports, journal=journal)


NOBODY = frozenset()


def forget(step, attempt, epoch, seen, tasks, requests, reports, journal):
    """Give epoch, seen, tasks, requests, reports and journal as far as they can make a difference; see Canonical."""
    known = {(o.method, o.attempt) for o in journal}
    here = (step, attempt)
    requests = [r for r in requests if (r.method, r.attempt) not in known and r.epoch >= seen[ROLES.index(r.role)]]
    journal = [o for o in journal if o.state in ('accepted', 'running') or (o.method, o.attempt) == here
               or any((t.kind, t.step, t.attempt) == ('send', o.method, o.attempt) for t in tasks)]
    tasks = [t for t in tasks if t.kind != 'poll' or (t.step, t.attempt) == here]
    epochs = sorted({epoch, *seen, *(r.epoch for r in requests), *(o.epoch for o in journal if o.state == 'accepted'),
                     *(t.epoch for t in tasks)})
    rank = {epoch: i for i, epoch in enumerate(epochs)}
    return (rank[epoch], tuple(rank[e] for e in seen), frozenset(t._replace(epoch=rank[t.epoch]) for t in tasks),
            frozenset(r._replace(epoch=rank[r.epoch]) for r in requests),
            frozenset(o._replace(epoch=0) for o in reports if (o.method, o.attempt) == here),
            frozenset(o._replace(epoch=rank[o.epoch] if o.state == 'accepted' else 0) for o in journal))
