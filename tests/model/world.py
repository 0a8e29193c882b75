"""The modelled world: one guest, two hosts, their agents and journals, the messages under way, the conductor's row. Immutable.

Times are not modelled: whatever may time out may do so at any moment, and a silence may be found short or long.
"""
import typing

from migrator.conductor.cursor import Cursor
from migrator.rpc.facts import Location
from migrator.states import GuestState as G
from migrator.states import PauseReason as P

SOURCE, DESTINATION = 'source', 'destination'


class Hypervisors(typing.NamedTuple):
    """What is true of the guest and of its disk. job: '' | 'copying' | 'switched' (source stopped, destination not yet started)."""

    source: G = G.RUNNING
    destination: G = G.ABSENT
    job: str = ''
    handed_over: bool = False       # the source is paused by the hand-over
    moved: bool = False             # the guest has run at the destination: that disk is the good one from then on
    source_disk: bool = True
    destination_disk: str = ''      # '' | 'partial' | 'complete'
    marker: bool = False            # what was prepared at the destination bears the migration's mark

    def at(self, role):
        """What a host answers when it is asked where the guest is."""
        state = self.source if role == SOURCE else self.destination
        paused = role == SOURCE and state is G.PAUSED
        return Location(state, P.MIGRATION if paused and self.handed_over else P.NONE, bool(self.job) and state is not G.ABSENT,
                        persistent=role == SOURCE or self.moved)


class Request(typing.NamedTuple):
    """A request under way to an agent."""

    role: str
    method: str
    attempt: int
    epoch: int


class Operation(typing.NamedTuple):
    """A line of an agent's journal. state: accepted | running (live_migration, its job at work) | succeeded | failed | interrupted."""

    role: str
    method: str
    attempt: int
    state: str
    epoch: int


class State(typing.NamedTuple):
    """Everything. pending: what the conductor has decided and not yet done; '' for nothing. half: the source's half of an observation."""

    cursor: Cursor
    epoch: int = 1
    pending: str = ''
    half: Location | None = None
    hypervisors: Hypervisors = Hypervisors()
    requests: frozenset = frozenset()
    reports: frozenset = frozenset()
    journal: frozenset = frozenset()
    seen: tuple = (0, 0)            # highest epoch that each agent's journal has (source, destination)
    down: frozenset = frozenset()   # roles whose agent does not answer
    debts: frozenset = frozenset()
    faults: int = 0                 # how many faults have happened
    aborted: bool = False


class Broken(Exception):
    """A rule was broken; the text says which."""


def run(method, hv):
    """Do an operation at the hypervisors. Returns (what is true afterwards, succeeded). Preconditions are the drivers' own.

    Raises Broken for a destructive operation that was issued though its precondition is false: the driver would refuse, but the
    conductor should never have asked.
    """
    match method:
        case 'pre_live_migration':
            return hv._replace(marker=True, destination_disk=hv.destination_disk or 'partial'), True
        case 'live_migration':
            if hv.source is not G.RUNNING or not hv.marker or hv.job:
                return hv, False
            return hv._replace(job='copying', destination=G.INCOMING), True
        case 'rollback_live_migration_at_destination':
            if hv.destination in (G.RUNNING, G.OFF):
                raise Broken('the destination is cleared though the guest has run there')
            gone = hv._replace(destination=G.ABSENT, marker=False, destination_disk='', job='')
            return gone, True
        case 'rollback_live_migration_at_source':
            if hv.source is G.ABSENT:
                raise Broken('the guest is to be resumed at the source, where it is not')
            if hv.source is G.PAUSED:
                return hv._replace(source=G.RUNNING, handed_over=False), True
            return hv, True
        case 'post_live_migration_at_destination':
            if hv.destination not in (G.RUNNING, G.OFF):
                raise Broken('the guest is made permanent at the destination, where it is not')
            return hv._replace(marker=False), True
        case 'post_live_migration_at_source':
            if hv.source is G.RUNNING or hv.job or not hv.moved:
                raise Broken('the source is cleared though the guest is not proven at the destination')
            return hv._replace(source=G.ABSENT, source_disk=False), True
    raise KeyError(method)


def job_moves(hv):
    """Give what the hypervisors may do by themselves: (name, what is true afterwards, outcome of the call or '' while it runs)."""
    if hv.job == 'copying':
        yield 'switch', hv._replace(job='switched', source=G.PAUSED, handed_over=True, destination_disk='complete'), ''
        yield 'job fails', hv._replace(job='', destination=G.ABSENT), 'failed'
        yield 'job fails, incoming left', hv._replace(job=''), 'failed'
        yield 'guest powers itself off', hv._replace(job='', source=G.OFF, destination=G.ABSENT), 'failed'
    elif hv.job == 'switched':
        there = hv._replace(job='', destination=G.RUNNING, moved=True)
        yield 'arrives', there._replace(source=G.ABSENT, handed_over=False), 'succeeded'
        yield 'arrives, the call fails', there._replace(source=G.ABSENT, handed_over=False), 'failed'
        yield 'arrives, confirmation lost', there, 'failed'
        yield 'finish lost', hv._replace(job=''), 'failed'
        yield 'switch fails', hv._replace(job='', source=G.RUNNING, handed_over=False, destination=G.ABSENT), 'failed'
