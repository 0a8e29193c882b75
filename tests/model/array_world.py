"""The worlds of the workflows on one volume: made, grown, removed at its array; given to a guest and taken away."""
import typing

from migrator.conductor.workflows.model import Commit
from migrator.states import Status
from tests.model.state import Broken
from tests.model.world import GOOD, LEFTOVERS, RECORD, World, demand


class Lun(typing.NamedTuple):
    """What is true at the array. deleting: it was asked to remove the LUN."""

    there: bool = False
    large: bool = False
    deleting: bool = False


class LunWorld(World):
    """begins: whether the LUN is there at the beginning. ends: how it must be when the workflow is completed."""

    def __init__(self, begins, ends):
        self.begins = begins
        self.ends = ends

    def first(self):
        """See World. The catalogue knows whether the volume can be used, and its size."""
        yield Lun(self.begins), (self.begins, False)

    def run(self, method, hv):
        """See World."""
        match method:
            case 'create_volume':
                return hv._replace(there=True), True
            case 'delete_volume':
                return hv._replace(there=False, deleting=True), True
            case 'extend_volume':
                return (hv._replace(large=True), True) if hv.there else (hv, False)
        raise KeyError(method)

    def violations(self, hv, book):
        """See World."""
        if self.begins and not hv.there and not (hv.deleting and not self.ends.there):
            yield GOOD, 'the LUN is gone though nobody asked for that'

    def untouched(self, method, hv):
        """A LUN of somebody else may have the name, or an export may stand in the way."""
        return hv.there is {'create_volume': False}.get(method, hv.there) and not hv.deleting

    def at_end(self, hv, book, status, debts):
        """See World."""
        if status is not Status.COMPLETED and not self.begins and hv.there and 'delete_volume' not in debts:
            yield LEFTOVERS, 'the LUN of a volume that was not made is left, and no debt names it'
        if status is Status.COMPLETED and (hv.there, hv.large) != (self.ends.there, self.ends.large):
            yield RECORD, f'completed, and the array has {hv}'
        if status is Status.COMPLETED and book != (self.ends.there, self.ends.large):
            yield RECORD, f'completed, and the catalogue says {book}'

    def learn(self, commit, hv, book):
        """See World."""
        now = {Commit.NOTHING: book, Commit.VOLUME_CREATED: (True, False), Commit.VOLUME_DELETED: (False, False),
               Commit.EXTENDED: (True, True)}[commit]
        if commit is not Commit.NOTHING and now != (hv.there, hv.large):
            raise Broken(RECORD, f'{commit.value} is committed, and the array has {hv}')
        return now


class Bound(typing.NamedTuple):
    """What is true at both hosts: whether there is an export for the guest, and whether the guest has the disk."""

    export: bool = False
    disk: bool = False


class AttachmentWorld(World):
    """attached: whether the guest has the volume at the beginning; in the end it must be the other way round. cut_off: the guest's host is
    off, and so is the guest, whose definition keeps the disk."""

    def __init__(self, attached, cut_off=False):
        self.attached = attached
        self.cut_off = cut_off

    def first(self):
        """See World."""
        yield Bound(self.attached, self.attached and not self.cut_off), (self.attached,)

    def run(self, method, hv):
        """See World."""
        match method:
            case 'export_attachment':
                return hv._replace(export=True), True
            case 'attach_volume':
                return (hv._replace(disk=True), True) if hv.export else (hv, False)
            case 'detach_volume':
                return hv._replace(disk=False), True
            case 'unexport_attachment':
                # While an attachment is undone the guest's host may be silent, and both cleanups are owed: then the array refuses.
                demand(not (hv.disk and self.attached), 'the export is ended while the guest uses it')
                return (hv, False) if hv.disk else (hv._replace(export=False), True)
        raise KeyError(method)

    def violations(self, hv, book):
        """See World."""
        if hv.disk and not hv.export:
            yield GOOD, 'the guest has a disk without data'

    def untouched(self, method, hv):
        """The guest may be in a hand-over, or somebody use the export."""
        return method in ('attach_volume', 'detach_volume')

    def at_end(self, hv, book, status, debts):
        """See World."""
        if status is Status.COMPLETED:
            if hv != Bound(not self.attached, not self.attached) or book != (not self.attached,):
                yield RECORD, f'completed, and there is {hv}, and the catalogue says {book}'
        elif not self.attached:
            for what, method in (('disk', 'detach_volume'), ('export', 'unexport_attachment')):
                if getattr(hv, what) and method not in debts:
                    yield LEFTOVERS, f'the {what} is left of what was not attached, and no debt names it'
        elif book != (True,):
            yield RECORD, 'the catalogue has forgotten an attachment of which something is left'

    def learn(self, commit, hv, book):
        """See World."""
        now = {Commit.NOTHING: book, Commit.ATTACHED: (True,), Commit.DETACHED: (False,)}[commit]
        if (commit is Commit.ATTACHED and hv != Bound(True, True)) or (commit is Commit.DETACHED and hv != Bound()):
            raise Broken(RECORD, f'{commit.value} is committed, and there is {hv}')
        return now
