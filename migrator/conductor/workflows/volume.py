"""Work on one volume: made, grown, removed at its array; brought to a guest and away from it. The volume's agent is the source, the guest's
host the destination. Short, but under the same locks, journal and recovery as a migration."""
from migrator.conductor.workflows.model import Commit, Role, Step, Undo, Workflow
from migrator.states import AgentKind, Status

ARRAY, GUEST, VOLUME = Role.SOURCE, Role.DESTINATION, AgentKind.VOLUME

VOLUME_CREATE = Workflow('volume_create', steps=(
    Step('create_volume', on=ARRAY, agent=VOLUME, status=Status.PREPARING, repeat=True, commit=Commit.VOLUME_CREATED,
         doing='the volume is being made',
         undo=Undo('delete_volume', on=ARRAY, agent=VOLUME, doing='what was made is being removed')),),
    undo_order=('delete_volume',), done='the volume can be used')

VOLUME_DELETE = Workflow('volume_delete', steps=(
    Step('delete_volume', on=ARRAY, agent=VOLUME, repeat=True, commit=Commit.VOLUME_DELETED, doing='the volume is being removed'),),
    done='the volume is gone')

VOLUME_EXTEND = Workflow('volume_extend', steps=(
    Step('extend_volume', on=ARRAY, agent=VOLUME, repeat=True, commit=Commit.EXTENDED, doing='the volume is being made larger'),),
    done='the volume has its new size')

VOLUME_ATTACH = Workflow('volume_attach', steps=(
    Step('export_attachment', on=ARRAY, agent=VOLUME, status=Status.PREPARING, repeat=True,
         doing='the volume is being made reachable for the guest',
         undo=Undo('unexport_attachment', on=ARRAY, agent=VOLUME, doing='the export for the guest is being ended')),
    Step('attach_volume', on=GUEST, repeat=True, commit=Commit.ATTACHED, doing='the guest is being given the volume',
         undo=Undo('detach_volume', on=GUEST, harmless=True, doing='the volume is being taken from the guest'))),
    # An export is not ended while the guest may be using it.
    undo_order=('detach_volume', 'unexport_attachment'), done='the guest has the volume')

VOLUME_DETACH = Workflow('volume_detach', steps=(
    Step('detach_volume', on=GUEST, repeat=True, doing='the volume is being taken from the guest'),
    Step('unexport_attachment', on=ARRAY, agent=VOLUME, status=Status.FINISHING, repeat=True, commit=Commit.DETACHED,
         doing='the export for the guest is being ended')), done='the guest has the volume no more')

#: For a guest whose host is attested to be off: nobody can take the volume from it, so whoever is connected is cut off.
VOLUME_CUT_OFF = Workflow('volume_cut_off', steps=(
    Step('unexport_attachment', on=ARRAY, agent=VOLUME, repeat=True, commit=Commit.DETACHED,
         doing='the export for the guest is being ended, whoever is connected'),), done='the guest has the volume no more')
