"""The world of a volume's migration: two arrays, an export between them, and a guest that writes as soon as it may.

The arrays know of no workflow: each does what its driver's contract says, checks its own preconditions, and may decline.
"""
import typing

from migrator.conductor.locate_volume import DEAD, UNREACHABLE, Answer, Said
from migrator.conductor.workflows.model import Commit
from migrator.states import Status
from migrator.states import VolumeMigration as M
from tests.model.state import DESTINATION, SOURCE, Broken
from tests.model.world import COPIES, GOOD, LEFTOVERS, RECORD, World, demand

#: How the LUN at the target is: made and empty or half copied; copied, but nobody has compared it; served, with its data still at the
#: source; has all data. An array cannot tell the first two and the last from one another.
NONE, PARTIAL, COPIED, MIRRORED, WHOLE = '', 'partial', 'copied', 'mirrored', 'whole'
SEEN = {NONE: Said.ABSENT, PARTIAL: Said.COMPLETE, COPIED: Said.COMPLETE, MIRRORED: Said.MIRRORED, WHOLE: Said.COMPLETE}

#: What drivers return, by the words of the model.
RETURNED = {'declined': {'moved': False}, 'moved': {'moved': True}, 'at once': {'moved': True, 'migration_async': False},
            'async': {'moved': True, 'migration_async': True}, 'force_host_copy': {'force_host_copy': True}}


class Arrays(typing.NamedTuple):
    """What is true. job: '' | moving (the source array moves it) | copying | comparing | completing, of which all but the first live in an
    agent. stale: the source lacks what was written at the target. written: a guest has written at the target."""

    source: bool = True
    export: bool = False
    target: str = NONE
    job: str = ''
    written: bool = False
    stale: bool = False
    dark: bool = False


class VolumeWorld(World):
    """See the module. forced: a host copy may have been asked for."""

    jobs = ('migrate_volume', 'complete_migration_target', 'copy_volume', 'verify_volume')
    unreachable, attested = UNREACHABLE, DEAD

    def first(self):
        """The volume is at the source, and nobody has attached it."""
        yield Arrays(), (SOURCE, M.MIGRATING)

    def options(self):
        """See World."""
        yield from ('', 'force_host_copy')

    def known(self, told):
        """See World."""
        return {method: RETURNED[result] for method, result in told}

    def ways(self, method, hv):
        """See World. A driver that has not begun before may decline; the target's takes over at once, or while data is on its way."""
        after, well = self.run(method, hv)
        if method == 'migrate_volume' and well:
            if hv.target is NONE:
                yield hv, True, 'declined'
            yield after, True, ''
        elif method == 'migrate_volume_target' and well:
            if hv.target is NONE:
                yield hv, True, 'declined'
            yield after, True, 'async'
            yield after._replace(target=WHOLE), True, 'at once'
        else:
            yield after, well, ''

    def run(self, method, hv):
        """See World."""
        return getattr(self, method)(hv)

    # --- what the drivers do ---

    def migrate_volume(self, hv):
        """The source array begins to move it, or finds that it has."""
        if not hv.source or hv.job or hv.export:
            return hv, False
        return hv._replace(job='moving', target=hv.target or PARTIAL), True

    def export_volume(self, hv):
        """The source can be read by the target."""
        return (hv._replace(export=True), True) if hv.source else (hv, False)

    def unexport_volume(self, hv):
        """Refused while somebody reads from it; when the target is in charge it must not even be asked for."""
        demand(not hv.written, 'the export is ended from which the target in charge reads')
        if hv.target == MIRRORED or hv.job in ('copying', 'comparing'):
            return hv, False
        return hv._replace(export=False), True

    def migrate_volume_target(self, hv):
        """The target array serves the source's LUN as its own."""
        if not hv.source or not hv.export or hv.target not in (NONE, MIRRORED):
            return hv, False
        return hv._replace(target=MIRRORED), True

    def cancel_migration_target(self, hv):
        """The take-over is undone. The driver refuses once it was given to anybody; it should never be asked to."""
        demand(not self.passed(hv), 'a take-over is undone that is in charge')
        return hv._replace(target=NONE), True

    def complete_migration_target(self, hv):
        """Waits until nothing is needed of the source."""
        if hv.target not in (MIRRORED, WHOLE) or hv.job:
            return hv, False
        return hv._replace(job='completing'), True

    def create_target_volume(self, hv):
        """An empty LUN; one that this migration made is success."""
        if hv.target not in (NONE, PARTIAL, COPIED):
            return hv, False
        return hv._replace(target=hv.target or PARTIAL), True

    def delete_target_volume(self, hv):
        """Refused while a job works on it."""
        demand(not self.passed(hv), 'the copy in charge is removed')
        if hv.job:
            return hv, False
        return hv._replace(target=NONE if hv.target != MIRRORED else MIRRORED), hv.target != MIRRORED

    def copy_volume(self, hv):
        """The destination's agent copies from the export, or goes on where an earlier one ended."""
        if not hv.export or hv.target not in (PARTIAL, COPIED) or hv.job:
            return hv, False
        return hv._replace(job='copying', target=PARTIAL), True

    def verify_volume(self, hv):
        """The destination's agent compares both ends."""
        if not hv.export or hv.target != COPIED or hv.job:
            return hv, False
        return hv._replace(job='comparing'), True

    def delete_source_volume(self, hv):
        """The export ends and the LUN is removed. Refused while somebody reads from it."""
        demand(hv.target == WHOLE, 'the source is removed though the target is not proven')
        if hv.job in ('copying', 'comparing', 'moving'):
            return hv, False
        return hv._replace(source=False, export=False), True

    # --- what happens by itself ---

    def moves(self, hv, book):
        """See World. What is written to a mirrored target is written to the source, too; what is written to a whole one is not."""
        left = hv._replace(job='')
        match hv.job:
            case 'moving':
                yield 'the source array has moved it', left._replace(target=WHOLE, source=False), 'succeeded:moved'
                yield 'the source array has moved it and keeps its own', left._replace(target=WHOLE), 'succeeded:moved'
                yield 'the source array has moved it and raises', left._replace(target=WHOLE, source=False), 'failed'
                yield 'the source array has copied it and raises', left._replace(target=WHOLE), 'failed'
                yield 'the source array raises', left, 'failed'
                yield 'the source array declines late', left._replace(target=NONE), 'succeeded:declined'
            case 'copying':
                yield 'copied', left._replace(target=COPIED), 'succeeded'
                yield 'the copy fails', left, 'failed'
            case 'comparing':
                yield 'both ends are equal', left._replace(target=WHOLE), 'succeeded'
                yield 'the ends differ', left, 'failed'
            case 'completing':
                if hv.target == WHOLE or (hv.source and hv.export):
                    yield 'all data is there', left._replace(target=WHOLE), 'succeeded'
                yield 'the take-over cannot be completed now', left, 'failed'
        if self.may_write(book) and hv.target == MIRRORED and not hv.written:
            yield 'a guest writes', hv._replace(written=True), ''
        if self.may_write(book) and hv.target == WHOLE and not hv.stale:
            yield 'a guest writes', hv._replace(written=True, stale=True), ''

    @staticmethod
    def may_write(book):
        """A guest may have the volume attached at the target."""
        return book[0] == DESTINATION

    def agent_dies(self, hv, role):
        """What copies, compares and waits does so in the destination's agent; an array goes on moving by itself."""
        return hv._replace(job='') if role == DESTINATION and hv.job != 'moving' else hv

    def power_off(self, hv, role):
        """No array forgets what it has; what was at work there is not any more."""
        ends = hv.job if role == (SOURCE if hv.job == 'moving' else DESTINATION) else ''
        yield hv._replace(dark=True, job='' if ends else hv.job)

    def cancel(self, hv):
        """A copy can be cancelled, and so can what an array moves."""
        return hv._replace(job='') if hv.job in ('moving', 'copying', 'comparing') else None

    def untouched(self, method, hv):
        """Something of somebody else may stand under the name; a driver may refuse to remove what it cannot judge."""
        return method in ('cancel_migration_target', 'delete_target_volume', 'unexport_volume', 'export_volume') or (
            method in ('create_target_volume', 'migrate_volume_target') and hv.target is NONE)

    def locate(self, hv, role):
        """See World."""
        if role == SOURCE:
            return Answer(Said.COMPLETE if hv.source else Said.ABSENT, job_active=hv.job == 'moving')
        return Answer(SEEN[hv.target], in_use=hv.written, job_active=hv.job in ('copying', 'comparing', 'completing'))

    def passed(self, hv):
        """Somebody has written at the target, or the source has it no more."""
        return hv.written or not hv.source

    # --- what must hold ---

    def violations(self, hv, book):
        """See World."""
        if not ((hv.source and not hv.stale) or hv.target == WHOLE):
            yield GOOD, 'no array has the whole volume'
        if book[0] == DESTINATION and hv.target not in (MIRRORED, WHOLE):
            yield GOOD, 'the catalogue has the volume at the target, which cannot serve it'
        if book[0] == DESTINATION and hv.target == MIRRORED and not (hv.source and hv.export):
            yield GOOD, 'the target is in charge and cannot reach the data that it has not got'
        if book[0] == SOURCE and hv.written:
            yield COPIES, 'the source is in charge, and there are writes at the target'

    def at_end(self, hv, book, status, debts):
        """See World."""
        there = status is Status.COMPLETED
        if book != ((DESTINATION, M.SUCCESS) if there else (SOURCE, M.NONE if status is Status.CANCELLED else M.ERROR)):
            yield RECORD, f'{status.value}, and the catalogue has it {book[1]} at the {book[0]}'
        if not there and not hv.source:
            yield RECORD, f'{status.value}, and the source has it no more'
        if not there and hv.target and not debts & {'cancel_migration_target', 'delete_target_volume'}:
            yield LEFTOVERS, 'something is left at the target that no debt names'
        if not there and hv.export and 'unexport_volume' not in debts:
            yield LEFTOVERS, 'the source is still exported, and no debt names that'
        if there and (hv.source or hv.export) and 'delete_source_volume' not in debts:
            yield LEFTOVERS, 'something is left at the source that no debt names'
        if there and hv.target != WHOLE:
            yield RECORD, 'completed, and not all data is at the target'

    def learn(self, commit, hv, book):
        """See World."""
        if commit is Commit.SUCCESS and (book[0] != DESTINATION or hv.target != WHOLE):
            raise Broken(RECORD, f'success is committed, and the target is {hv.target or "empty"}')
        if commit is Commit.MOVED and hv.target != WHOLE:
            raise Broken(RECORD, f'the move is committed, and the target is {hv.target or "empty"}')
        if commit is Commit.ATTACHABLE and hv.target not in (MIRRORED, WHOLE):
            raise Broken(RECORD, f'the take-over is committed, and the target is {hv.target or "empty"}')
        return {Commit.NOTHING: book, Commit.ATTACHABLE: (DESTINATION, M.ATTACHABLE), Commit.MOVED: (DESTINATION, M.SUCCESS),
                Commit.SUCCESS: (DESTINATION, M.SUCCESS)}[commit]

    def ended(self, book, status):
        """See World."""
        return {Status.FAILED: (SOURCE, M.ERROR), Status.CANCELLED: (SOURCE, M.NONE)}.get(status, book)
