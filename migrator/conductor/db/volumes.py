"""Statements on volumes and attachments. Rows are made, changed and deleted by requests and by the commits of workflows.

Two locks belong to a volume. Whoever changes the volume itself - its size, its place, its existence - takes both; whoever brings it to
a guest or away takes the second one. A migration lets go of the second when it commits `migrating_attachable`, and keeps the first: from
then on the volume can be attached and detached, and still not be extended, deleted, or migrated once more.
"""
import hashlib

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.ledger import LIVE
from migrator.conductor.db.tables import OPEN_DEBT, attachment, debt, instance, migration, resource_lock, volume
from migrator.rpc import facts
from migrator.states import AttachmentState, VolumeState

#: The mode of a migration's lock from the commit of `migrating_attachable` on.
ATTACHABLE = 'attachable'

#: What a volume is while a workflow of a kind works on it. It is not stored, so that nothing need be taken back when the work fails.
WORKED_ON = {'volume_delete': VolumeState.DELETING.value, 'volume_extend': VolumeState.EXTENDING.value,
             'volume_attach': VolumeState.ATTACHING.value, 'volume_detach': VolumeState.DETACHING.value,
             'volume_cut_off': VolumeState.DETACHING.value}


def resource(volume_id):
    """Name the lock of a volume."""
    return f'volume:{volume_id}'


def attaching(volume_id):
    """Name the lock of whoever brings a volume to a guest or away from it."""
    return f'attachment:{volume_id}'


def name_resource(name):
    """Name the lock of a name, which a volume is to bear that is being made."""
    return f'volume-name:{hashlib.sha256(name.encode()).hexdigest()}'


def locks(volume_id):
    """Name all locks of a volume: what everything takes that changes more than attachments."""
    return attaching(volume_id), resource(volume_id)


def _query():
    whole, second, work = resource_lock.alias('whole'), resource_lock.alias('second'), migration.alias('work')
    owed = sa.select(sa.func.count()).where(debt.c.volume_id == volume.c.id, OPEN_DEBT).scalar_subquery()
    held = sa.exists().where(attachment.c.volume_id == volume.c.id, attachment.c.status == AttachmentState.ATTACHED.value)
    state = sa.case(WORKED_ON, value=work.c.kind, else_=sa.case((held, VolumeState.IN_USE.value), else_=volume.c.status))
    return sa.select(volume, state.label('state'), now_ms().label('now'), whole.c.migration_id.label('locked_by'),
                     whole.c.mode.label('lock_mode'), second.c.migration_id.label('attaching_by'), owed.label('owed')) \
        .outerjoin(whole, whole.c.resource == sa.literal('volume:').concat(volume.c.id)) \
        .outerjoin(second, second.c.resource == sa.literal('attachment:').concat(volume.c.id)) \
        .outerjoin(work, work.c.id == second.c.migration_id)


def get(tx, id_or_name):
    """Read one volume with its locks and number of debts; `state` is what it is at this moment. One statement.

    Raises VolumeNotFound, or InvalidRequest for two of a name.
    """
    key = volume.c.id if facts.UUID.match(id_or_name) else volume.c.name
    rows = tx.execute(_query().where(key == id_or_name).limit(2)).all()
    if not rows:
        raise exceptions.VolumeNotFound(f'there is no volume {id_or_name}')
    if len(rows) > 1:
        raise exceptions.InvalidRequest(f'more than one volume has the name {id_or_name}; give its id')
    return rows[0]


def listing(tx, filters=None, limit=1000, marker=None):
    """Read volumes by name. filters: host, backend, pool, type, status. marker: id of the last one of the previous page. One statement, two
    with a marker."""
    query = _query().order_by(volume.c.name, volume.c.id).limit(limit)
    state = query.selected_columns.state
    for name, wanted in (filters or {}).items():
        query = query.where((state if name == 'status' else volume.c[name]) == wanted)
    if marker:
        last = get(tx, marker)
        query = query.where(sa.or_(volume.c.name > last.name, sa.and_(volume.c.name == last.name, volume.c.id > last.id)))
    return tx.execute(query).all()


def named(tx, name):
    """Read the volumes of a name. One statement."""
    return tx.execute(sa.select(volume.c.id, volume.c.status).where(volume.c.name == name)).all()


def insert(tx, volume_id, **columns):
    """Write a new volume. One statement."""
    values = {'locator': {}, 'created_at': now_ms(), **columns}
    tx.execute(sa.insert(volume).values(id=volume_id, updated_at=now_ms(), **values))


def update(tx, volume_id, **columns):
    """Change a volume. One statement."""
    tx.execute(sa.update(volume).where(volume.c.id == volume_id).values(updated_at=now_ms(), **columns))


def delete(tx, volume_id):
    """Forget a volume that a workflow deleted, with what is left of its attachments. Two statements."""
    tx.execute(sa.delete(attachment).where(attachment.c.volume_id == volume_id))
    tx.execute(sa.delete(volume).where(volume.c.id == volume_id))


def let_attach(tx, volume_id, migration_id):
    """A migration lets others attach and detach from now on. For the commit of `migrating_attachable`. Two statements. Repeatable."""
    tx.execute(sa.delete(resource_lock).where(resource_lock.c.resource == attaching(volume_id),
                                              resource_lock.c.migration_id == migration_id))
    tx.execute(sa.update(resource_lock).where(resource_lock.c.resource == resource(volume_id), resource_lock.c.migration_id == migration_id)
               .values(mode=ATTACHABLE))


def last_migration(tx, volume_id):
    """Read the last migration of a volume, None if there was none. One statement."""
    return tx.execute(sa.select(migration).where(migration.c.volume_id == volume_id, migration.c.kind == 'volume_migration')
                      .order_by(migration.c.created_at.desc(), migration.c.id.desc()).limit(1)).first()


# --- attachments ---

def attachments(tx, volume_ids):
    """Read the attachments of several volumes with the names of the guests, oldest first. One statement for each 500."""
    found = []
    for start in range(0, len(volume_ids), 500):
        found += tx.execute(sa.select(attachment, instance.c.name.label('instance_name'), instance.c.host.label('instance_host'))
                            .outerjoin(instance, instance.c.uuid == attachment.c.instance_uuid)
                            .where(attachment.c.volume_id.in_(volume_ids[start:start + 500]))
                            .order_by(attachment.c.created_at, attachment.c.id)).all()
    return found


def of_instance(tx, instance_uuid):
    """Read the attachments of a guest. One statement."""
    return tx.execute(sa.select(attachment).where(attachment.c.instance_uuid == instance_uuid).order_by(attachment.c.id)).all()


def arriving(tx, instances):
    """Read the migrations that move volumes which these guests have, with the guest's uuid and the time. One statement for each 500."""
    found = []
    for start in range(0, len(instances), 500):
        found += tx.execute(sa.select(migration, now_ms().label('now'), attachment.c.instance_uuid.label('guest'))
                            .join(attachment, attachment.c.volume_id == migration.c.volume_id)
                            .where(migration.c.kind == 'volume_migration', LIVE,
                                   attachment.c.instance_uuid.in_(instances[start:start + 500]))
                            .order_by(migration.c.id)).all()
    return found


def insert_attachment(tx, attachment_id, **columns):
    """Write a new attachment. One statement."""
    values = {'connection': {}, **columns}
    tx.execute(sa.insert(attachment).values(id=attachment_id, created_at=now_ms(), updated_at=now_ms(), **values))


def update_attachment(tx, attachment_id, **columns):
    """Change an attachment. One statement."""
    tx.execute(sa.update(attachment).where(attachment.c.id == attachment_id).values(updated_at=now_ms(), **columns))


def delete_attachment(tx, attachment_id):
    """Forget an attachment. One statement."""
    tx.execute(sa.delete(attachment).where(attachment.c.id == attachment_id))
