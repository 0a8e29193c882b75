"""The world of the workflows on one guest at one host: created, started, stopped, deleted."""
import typing

from migrator.conductor.workflows.model import Commit
from migrator.states import GuestState as G
from migrator.states import Status
from tests.model.state import SOURCE, Broken
from tests.model.world import COPIES, GOOD, LEFTOVERS, RECORD, World, demand

#: What the catalogue may say: the guest is not in it, is stopped, or runs.
MISSING, STOPPED, RUNNING = 'missing', 'stopped', 'running'
BOOK = {G.ABSENT: MISSING, G.OFF: STOPPED, G.RUNNING: RUNNING}


class Here(typing.NamedTuple):
    """What is true at the host. deleting: it was asked to remove the guest, so that its last disk may go."""

    guest: G = G.ABSENT
    disk: bool = False
    deleting: bool = False
    dark: bool = False              # the host has lost its power


class InstanceWorld(World):
    """begins: how the guest may be at the beginning. ends: how it must be when the workflow is completed."""

    def __init__(self, begins, ends):
        self.begins = begins
        self.ends = ends

    def first(self):
        """See World."""
        for guest in self.begins:
            yield Here(guest, guest is not G.ABSENT), (BOOK[guest],)

    def run(self, method, hv):
        """See World."""
        match method:
            case 'create_instance':
                return (hv if hv.guest is not G.ABSENT else Here(G.OFF, True)), True
            case 'start_instance':
                if hv.guest is G.ABSENT:
                    return hv, False
                demand(hv.disk, 'a guest is started without its disk')
                return hv._replace(guest=G.RUNNING), True
            case 'stop_instance':
                return (hv, False) if hv.guest is G.ABSENT else (hv._replace(guest=G.OFF), True)
            case 'delete_instance':
                if hv.guest is G.RUNNING:
                    # While a new guest is undone a start may come late, when its stop is owed already: then the driver refuses, and both
                    # are owed. A guest that has been in use is never to be asked for.
                    demand(self.begins == (G.ABSENT,), 'a guest is deleted while it runs')
                    return hv, False
                return Here(deleting=True), True
        raise KeyError(method)

    def power_off(self, hv, role):
        """See World. All is at one host, the source."""
        if role == SOURCE:
            yield hv._replace(guest=G.ABSENT if hv.guest is G.ABSENT else G.OFF, dark=True)

    def untouched(self, method, hv):
        """Files of somebody else may stand in the way of a new guest; a guest in a migration is neither started nor stopped."""
        return hv.guest is {'create_instance': G.ABSENT, 'start_instance': G.OFF}.get(method, hv.guest)

    def gone(self, hv):
        """See World."""
        return hv.guest is G.ABSENT

    def violations(self, hv, _book):
        """See World."""
        if hv.guest is not G.ABSENT and not hv.disk:
            yield GOOD, 'there is a guest without a disk'
        if G.ABSENT not in self.begins and not hv.disk and not (hv.deleting and self.ends is G.ABSENT):
            yield GOOD, 'the disk is gone though nobody asked for that'
        if hv.guest is G.RUNNING and self.begins == (G.OFF,) and self.ends is G.ABSENT:
            yield COPIES, 'a guest that is to be deleted was started'

    def at_end(self, hv, book, status, debts):
        """See World."""
        if status is not Status.COMPLETED and self.begins == (G.ABSENT,) and hv.disk and 'delete_instance' not in debts:
            yield LEFTOVERS, 'something of a guest that was not made is left, and no debt names it'
        if status is Status.COMPLETED and hv.guest is not self.ends and not hv.dark:
            yield RECORD, f'completed, and the guest is {hv.guest.value}'
        if status is Status.COMPLETED and book != (BOOK[hv.guest],) and not hv.dark:
            yield RECORD, f'the catalogue has the guest {book[0]}, and it is {hv.guest.value}'
        # A removal whose end was not heard of is asked for again: the catalogue keeps the guest until it is told that it is gone.
        asked_again = self.begins == (G.OFF,) and self.ends is G.ABSENT and hv.deleting
        if (book[0] == MISSING) != (hv.guest is G.ABSENT) and not debts and not asked_again:
            yield RECORD, f'the catalogue has the guest {book[0]}, and it is {hv.guest.value}, and no debt says so'

    def learn(self, commit, hv, book):
        """See World."""
        now = {Commit.NOTHING: book, Commit.CREATED: (STOPPED,), Commit.RUNNING: (RUNNING,), Commit.STOPPED: (STOPPED,),
               Commit.DELETED: (MISSING,)}[commit]
        if hv.dark and RUNNING in now and hv.guest is G.OFF:
            return now              # it ran when its host said so
        if commit is not Commit.NOTHING and now != (BOOK[hv.guest],) and not (commit is Commit.CREATED and hv.guest is G.RUNNING):
            raise Broken(RECORD, f'{commit.value} is committed, and the guest is {hv.guest.value}')
        return now
