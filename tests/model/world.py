"""What a workflow acts upon: where the guest is, which copies of its disk exist, what hypervisors do by themselves. Immutable.

A world knows nothing of the workflow's table; it knows methods of the drivers, their preconditions and effects, by the contract in
`migrator.compute.driver`. `worlds.py` says which workflow acts in which world.
"""
import abc

from migrator.rpc.facts import Location
from migrator.states import GuestState, Status
from tests.model.state import Broken

COPIES = 'at most one running copy'
GOOD = 'never zero good copies'
PRECONDITION = 'no destructive operation with a false precondition'
RECORD = 'the catalogue says what is true'
LEFTOVERS = 'an ended workflow leaves nothing that no debt names'
GUEST = 'the guest goes on where the workflow leaves it'


class World(abc.ABC):
    """One kind of world. `hv` is its state, a named tuple; `book` is what the catalogue says of it."""

    #: Methods whose work goes on in the hypervisor after the agent has begun it.
    jobs = ()
    book = ()

    @abc.abstractmethod
    def first(self):
        """Give what may be true at the beginning, each as (hv, book)."""

    @abc.abstractmethod
    def run(self, method, hv):
        """Do an operation: returns (what is true afterwards, succeeded).

        Raises Broken(PRECONDITION) for one that destroys or starts something though its precondition is false: the driver would
        refuse, but the conductor should never have asked. KeyError for a method that this world does not know.
        """

    def ways(self, method, hv):
        """Give every way in which an operation may go, each as (what is true afterwards, succeeded, what it returned or '')."""
        yield (*self.run(method, hv), '')

    def known(self, told):
        """Turn what operations returned, as (method, result) pairs, into what conditions look at. See also `options`."""
        return {}

    def options(self):
        """Give what may have been asked for, each as a result of `options`."""
        yield ''

    @abc.abstractmethod
    def violations(self, hv, book):
        """Give what is wrong now, each as (invariant, how)."""

    @abc.abstractmethod
    def at_end(self, hv, book, status, debts):
        """Give what is wrong at an end, each as (invariant, how)."""

    @abc.abstractmethod
    def learn(self, commit, hv, book):
        """Give what the catalogue says after a commit. Raises Broken(RECORD) for a commit without proof."""

    #: What counts for the answer of a host that gives none; and if it is attested to be off.
    unreachable, attested = Location(GuestState.UNREACHABLE), Location(GuestState.DEAD)

    def locate(self, hv, role):
        """What a host answers when it is asked where the guest is."""
        raise NotImplementedError(f'{type(self).__name__}: a workflow that observes needs a world that says where the guest is')

    def moves(self, hv, book):
        """Give what hypervisors, arrays and users may do by themselves: (name, what is true afterwards, outcome of the job's call or '').

        An outcome is `failed`, `succeeded`, or `succeeded:` and what the call returned.
        """
        return ()

    def agent_dies(self, hv, role):
        """Give what is true after the agent of a host has died: what only lives in its process has ended."""
        return hv

    def ended(self, book, status):
        """Give what the catalogue says once a workflow has ended, beyond its commits."""
        return book

    def power_off(self, hv, role):
        """Give what may be true after a host has lost its power; a job of the hypervisors that needed it has ended."""
        return ()

    def cancel(self, hv):
        """Give what is true after the job was cancelled, or None if there is none to cancel."""
        return

    def untouched(self, method, hv):
        """True if the driver may refuse a method because of something that is not the workflow's, and nothing has been touched."""
        return False

    def gone(self, hv):
        """True if the host says that it knows no such guest, so that a debt has nothing left to clear."""
        return False

    def passed(self, hv):
        """True after the point of no return, as a fact of the world."""
        return False

    def unknown(self, book):
        """What the catalogue says when nobody knows any more where the guest is."""
        raise NotImplementedError(f'{type(self).__name__}: a workflow at two hosts needs a world that says what is then written down')

    def hopeless(self, hv):
        """True if no observation and no operation can bring it to an end: it must stand in needs_operator."""
        return False


def demand(condition, how):
    """Raise Broken unless a destructive operation's precondition holds."""
    if not condition:
        raise Broken(PRECONDITION, how)


def mismatch(status, wanted, truth):
    """Give a violation when an ended workflow and the world do not say the same."""
    if (status is Status.COMPLETED) != wanted:
        yield RECORD, f'the workflow is {status.value}, and {truth}'
