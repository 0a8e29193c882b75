"""What workflows on volumes send to agents, and what the catalogue learns of them: by a commit, and by the workflow's end."""
from migrator.conductor.db import volumes
from migrator.conductor.workflows.model import Commit
from migrator.rpc import facts, volume_facts
from migrator.states import AgentKind, AttachmentState, Status, VolumeState

#: Workflows on volumes that are no migration.
KINDS = ('volume_create', 'volume_delete', 'volume_extend', 'volume_attach', 'volume_detach', 'volume_cut_off')

#: What the arguments of agents' methods are read as, by the kind of the agent and the argument's name.
TYPES = {
    (AgentKind.COMPUTE, 'plan'): facts.Plan, (AgentKind.COMPUTE, 'spec'): facts.InstanceSpec,
    (AgentKind.COMPUTE, 'attachment'): volume_facts.Attachment,
    (AgentKind.VOLUME, 'plan'): volume_facts.VolumePlan, (AgentKind.VOLUME, 'spec'): volume_facts.VolumeSpec,
    (AgentKind.VOLUME, 'lun'): volume_facts.LunRef, (AgentKind.VOLUME, 'attachment'): volume_facts.VolumeAttachment}


def read_arguments(agent, stored):
    """Read arguments back that were stored as plain values. agent: the kind of the agent that they are for."""
    return {k: facts.from_wire(TYPES[agent, k], v) if (agent, k) in TYPES else v for k, v in stored.items()}


def lun_of(row):
    """Say where a volume's LUN is. row: a volume's, or a dict of the same names."""
    known = row if isinstance(row, dict) else row._mapping
    return volume_facts.LunRef(known['host'], known['backend'], known['pool'], known['lun'])


# --- what agents are given ---

def arguments_of(row, method):
    """Give the arguments of an operation of a workflow in KINDS, from the frozen request and the facts of earlier steps."""
    request = row.request
    lun = facts.from_wire(volume_facts.LunRef, request['lun'])
    match method:
        case 'create_volume':
            return {'spec': volume_facts.VolumeSpec(row.volume_id, lun, request['size'])}
        case 'delete_volume':
            return {'lun': lun}
        case 'extend_volume':
            return {'lun': lun, 'size': request['size']}
        case 'export_attachment' | 'unexport_attachment':
            asked = request['attachment']
            return {'attachment': volume_facts.VolumeAttachment(asked['id'], row.volume_id, lun, not asked['read_only'],
                                                                 force=bool(request.get('force')))}
        case 'attach_volume' | 'detach_volume':
            return {'attachment': facts.from_wire(volume_facts.Attachment, {**request['attachment'], 'connection': connection(row)})}
    raise KeyError(method)


def connection(row):
    """Give how the guest reaches the export, as plain values; None while nobody has said it."""
    return row.facts.get('export_attachment', {}).get('connection') or row.request.get('connection') or None


# --- what the catalogue learns ---

COMMITS = (Commit.VOLUME_CREATED, Commit.VOLUME_DELETED, Commit.EXTENDED, Commit.ATTACHED, Commit.DETACHED)


def commit(tx, row, what, result):
    """Write what a step has proven. row: the workflow. result: what the step returned."""
    match what:
        case Commit.VOLUME_CREATED:
            volumes.update(tx, row.volume_id, status=VolumeState.AVAILABLE.value, locator=result.get('locator') or {})
        case Commit.VOLUME_DELETED:
            volumes.delete(tx, row.volume_id)
        case Commit.EXTENDED:
            volumes.update(tx, row.volume_id, size=row.request['size'])
        case Commit.ATTACHED:
            volumes.update_attachment(tx, row.request['attachment']['id'], status=AttachmentState.ATTACHED.value,
                                      target=str(result.get('target', ''))[:64], connection=connection(row) or {})
        case Commit.DETACHED:
            volumes.delete_attachment(tx, row.request['attachment']['id'])


def ended(tx, row, cursor):
    """Write what the end of a workflow in KINDS means for its volume.

    A success was written by the commits; a failure leaves the volume as it was, with the words of what went wrong.
    """
    done = cursor.status is Status.COMPLETED
    words = '' if done else cursor.error
    if row.kind == 'volume_create' and not done:
        volumes.update(tx, row.volume_id, status=VolumeState.ERROR.value, error=words)
        return
    if row.kind == 'volume_attach' and not done:
        volumes.delete_attachment(tx, row.request['attachment']['id'])
    volumes.update(tx, row.volume_id, error=words)
