"""The world of a live migration: one guest with one disk that is copied, two hosts."""
import typing

from migrator.conductor.workflows.model import Commit
from migrator.rpc.facts import Location
from migrator.states import GuestState as G
from migrator.states import PauseReason as P
from migrator.states import Status
from tests.model.state import DESTINATION, SOURCE, Broken
from tests.model.world import COPIES, GOOD, GUEST, LEFTOVERS, RECORD, World, demand


class Hypervisors(typing.NamedTuple):
    """What is true. job: '' | copying | switched (source stopped, destination not started) | post-copy (the destination runs, and needs
    the source) | broken (post-copy broke off)."""

    source: G = G.RUNNING
    destination: G = G.ABSENT
    job: str = ''
    handed_over: bool = False       # the source is paused by the hand-over
    moved: bool = False             # the guest has run at the destination: that disk is the good one from then on
    source_disk: bool = True
    destination_disk: str = ''      # '' | partial | complete
    marker: bool = False            # what was prepared at the destination bears the migration's mark
    dark: bool = False              # a host has lost its power, so that a guest may be off which nobody has stopped


class MigrationWorld(World):
    """See the module. post_copy: the hypervisor may be told to switch before all is copied."""

    jobs = ('live_migration',)

    def __init__(self, post_copy=True):
        self.post_copy = post_copy

    def first(self):
        """The guest runs at the source and the catalogue has it there."""
        yield Hypervisors(), (SOURCE, G.RUNNING)

    def run(self, method, hv):
        """See World."""
        match method:
            case 'pre_live_migration':
                if hv.destination not in (G.ABSENT, G.INCOMING):
                    return hv, False
                return hv._replace(marker=True, destination_disk=hv.destination_disk or 'partial'), True
            case 'live_migration':
                if hv.source is not G.RUNNING or not hv.marker or hv.job or hv.destination is not G.ABSENT:
                    return hv, False
                return hv._replace(job='copying', destination=G.INCOMING), True
            case 'rollback_live_migration_at_destination':
                demand(hv.destination in (G.ABSENT, G.INCOMING) and not hv.moved,
                       'the destination is cleared though the guest has run there')
                demand(hv.job != 'switched', 'the incoming guest is destroyed while it is being handed over')
                return hv._replace(destination=G.ABSENT, marker=False, destination_disk='', job=''), True
            case 'rollback_live_migration_at_source':
                demand(hv.source is not G.ABSENT and not hv.moved, 'the guest is to be resumed at the source, where it is no more')
                demand(hv.source is not G.PAUSED or not hv.job, 'the guest is to be resumed at the source while its job is at work')
                return (hv._replace(source=G.RUNNING, handed_over=False) if hv.source is G.PAUSED else hv), True
            case 'post_live_migration_at_destination':
                demand(hv.moved and (hv.destination is G.RUNNING or hv.dark),
                       'the guest is made permanent at the destination, where it has not been proven')
                return hv._replace(marker=False), True
            case 'post_live_migration_at_source':
                demand(hv.source is not G.RUNNING and not hv.job and hv.moved,
                       'the source is cleared though the guest is not proven at the destination')
                return hv._replace(source=G.ABSENT, source_disk=False), True
        raise KeyError(method)

    def locate(self, hv, role):
        """See World."""
        state = hv.source if role == SOURCE else hv.destination
        reason = P.NONE
        if role == SOURCE and state is G.PAUSED and hv.handed_over:
            reason = {'post-copy': P.POST_COPY, 'broken': P.POST_COPY_FAILED}.get(hv.job, P.MIGRATION)
        if role == DESTINATION and hv.job in ('post-copy', 'broken') and hv.destination is G.RUNNING:
            state, reason = (G.RUNNING, P.POST_COPY) if hv.job == 'post-copy' else (G.PAUSED, P.POST_COPY_FAILED)
        return Location(state, reason, hv.job in ('copying', 'switched', 'post-copy') and state is not G.ABSENT,
                        persistent=role == SOURCE or hv.moved)

    def moves(self, hv, _book):
        """See World."""
        if hv.job == 'copying':
            yield 'switch', hv._replace(job='switched', source=G.PAUSED, handed_over=True, destination_disk='complete'), ''
            yield 'job fails', hv._replace(job='', destination=G.ABSENT), 'failed'
            yield 'job fails, incoming left', hv._replace(job=''), 'failed'
            yield 'guest powers itself off', hv._replace(job='', source=G.OFF, destination=G.ABSENT), 'failed'
            if self.post_copy:
                yield 'post-copy begins', hv._replace(job='post-copy', source=G.PAUSED, handed_over=True, destination=G.RUNNING,
                                                      moved=True, destination_disk='complete'), ''
        elif hv.job == 'switched':
            there = hv._replace(job='', destination=G.RUNNING, moved=True)
            yield 'arrives', there._replace(source=G.ABSENT, handed_over=False), 'succeeded'
            yield 'arrives, the call fails', there._replace(source=G.ABSENT, handed_over=False), 'failed'
            yield 'arrives, confirmation lost', there, 'failed'
            yield 'finish lost', hv._replace(job=''), 'failed'
            yield 'switch fails', hv._replace(job='', source=G.RUNNING, handed_over=False, destination=G.ABSENT), 'failed'
        elif hv.job == 'post-copy':
            yield 'post-copy ends', hv._replace(job='', source=G.ABSENT, handed_over=False), 'succeeded'
            yield 'post-copy breaks off', hv._replace(job='broken'), 'failed'

    def power_off(self, hv, role):
        """See World. A guest that ran there is off; one that was arriving may have arrived a moment before, or stays where it was."""
        hv = hv._replace(dark=True)
        post_copy = 'broken' if hv.job in ('post-copy', 'broken') else ''
        if role == SOURCE:
            left = hv._replace(source=G.ABSENT if hv.source is G.ABSENT else G.OFF, handed_over=False, job=post_copy)
            yield left
            if hv.job in ('copying', 'switched'):
                yield left._replace(destination=G.ABSENT)
            if hv.job == 'switched':
                yield left._replace(destination=G.RUNNING, moved=True)
        else:
            left = hv._replace(destination=G.OFF if hv.moved else G.ABSENT, job=post_copy)
            yield left
            if hv.job == 'switched':
                yield left._replace(source=G.RUNNING, handed_over=False)

    def cancel(self, hv):
        """A job that copies can be cancelled; one that has switched cannot."""
        return hv._replace(job='', destination=G.ABSENT) if hv.job == 'copying' else None

    def untouched(self, method, hv):
        """Files of somebody else may stand in the way at the destination; a driver may refuse to clear what it cannot judge."""
        return method == 'rollback_live_migration_at_destination' or (method == 'pre_live_migration' and not hv.marker)

    def passed(self, hv):
        """The guest has run at the destination."""
        return hv.moved

    def hopeless(self, hv):
        """A broken post-copy needs a person; so does a guest that went down where it was handed over to, if the source has it too."""
        return hv.job == 'broken' or (hv.dark and hv.moved and hv.destination is G.OFF and hv.source is not G.ABSENT)

    def violations(self, hv, _book):
        """See World."""
        if hv.source is G.RUNNING and hv.destination is G.RUNNING:
            yield COPIES, 'the guest runs at both hosts'
        if not (hv.destination_disk == 'complete' if hv.moved else hv.source_disk):
            yield GOOD, 'no good copy of the disk is left'
        if hv.source is G.ABSENT and hv.destination is G.ABSENT:
            yield GOOD, 'no host knows the guest'

    def at_end(self, hv, book, status, debts):
        """See World."""
        if book[1] is G.UNREACHABLE:
            yield from self.at_lost_end(hv, status, debts)
            return
        truth = (DESTINATION if hv.moved else SOURCE, hv.destination if hv.moved else hv.source)
        if (status is Status.COMPLETED) != hv.moved:
            yield RECORD, f'{status.value}, and the guest {"runs" if hv.moved else "never ran"} at the destination'
        if status is not Status.COMPLETED and hv.source is G.PAUSED:
            yield GUEST, f'{status.value}, and the guest is left paused'
        if book != truth and not (hv.dark and book[0] == truth[0]):     # heartbeats will say that it is off
            yield RECORD, f'the catalogue has it {book[1].value} at the {book[0]}, and it is {truth[1].value} at the {truth[0]}'
        if hv.job:
            yield LEFTOVERS, 'the workflow has ended, its job has not'
        if not hv.moved and (hv.marker or hv.destination_disk or hv.destination is not G.ABSENT) \
                and 'rollback_live_migration_at_destination' not in debts:
            yield LEFTOVERS, 'something is left at the destination that no debt names'
        if hv.moved and (hv.source is not G.ABSENT or hv.source_disk) and 'post_live_migration_at_source' not in debts:
            yield LEFTOVERS, 'something is left at the source that no debt names'
        if hv.moved and hv.marker and 'post_live_migration_at_destination' not in debts:
            yield LEFTOVERS, 'the guest is not permanent at the destination, and no debt names it'

    @staticmethod
    def at_lost_end(hv, status, debts):
        """Give what is wrong at an end at which both hosts were off. Nothing runs then, and nothing that is left is without a debt."""
        if status is not Status.FAILED or not hv.dark:
            yield RECORD, f'{status.value}, and the guest is unknown, though not both hosts have lost their power'
        if hv.source is G.PAUSED and 'rollback_live_migration_at_source' not in debts:
            yield GUEST, f'{status.value}, and the guest is left paused'
        if (hv.marker or hv.destination is not G.ABSENT) and 'rollback_live_migration_at_destination' not in debts:
            yield LEFTOVERS, 'something is left at the destination that no debt names'

    def unknown(self, book):
        """See World."""
        return (book[0], G.UNREACHABLE)

    def learn(self, commit, hv, book):
        """See World."""
        if commit is Commit.AT_DESTINATION:
            if not hv.moved:
                raise Broken(RECORD, 'the location is committed though the guest has not run at the destination')
            return (DESTINATION, hv.destination)
        if commit is Commit.NOTHING:
            return book
        raise KeyError(commit)
