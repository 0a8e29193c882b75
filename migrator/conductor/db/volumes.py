"""Statements on volumes and attachments. Rows are made, changed and deleted by requests and by the commits of workflows.

Two locks belong to a volume. Whoever changes the volume itself - its size, its place, its existence - takes both; whoever brings it to
a guest or away takes the second one. A migration lets go of the second when it commits `migrating_attachable`, and keeps the first: from
then on the volume can be attached and detached, and still not be extended, deleted, or migrated once more.
"""
import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import OPEN_DEBT, attachment, debt, instance, resource_lock, volume
from migrator.rpc import facts

#: The mode of a migration's lock from the commit of `migrating_attachable` on.
ATTACHABLE = 'attachable'


def resource(volume_id):
    """Name the lock of a volume."""
    return f'volume:{volume_id}'


def attaching(volume_id):
    """Name the lock of whoever brings a volume to a guest or away from it."""
    return f'attachment:{volume_id}'


def locks(volume_id):
    """Name all locks of a volume: what everything takes that changes more than attachments."""
    return attaching(volume_id), resource(volume_id)


def _query():
    owed = sa.select(sa.func.count()).where(debt.c.volume_id == volume.c.id, OPEN_DEBT).scalar_subquery()
    whole, second = resource_lock.alias('whole'), resource_lock.alias('second')
    return sa.select(volume, now_ms().label('now'), whole.c.migration_id.label('locked_by'), whole.c.mode.label('lock_mode'),
                     second.c.migration_id.label('attaching_by'), owed.label('owed')) \
        .outerjoin(whole, whole.c.resource == sa.literal('volume:').concat(volume.c.id)) \
        .outerjoin(second, second.c.resource == sa.literal('attachment:').concat(volume.c.id))


def get(tx, id_or_name):
    """Read one volume with its locks and number of debts. One statement. Raises VolumeNotFound, or InvalidRequest for two of a name."""
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
    for name, wanted in (filters or {}).items():
        query = query.where(volume.c[name] == wanted)
    if marker:
        last = get(tx, marker)
        query = query.where(sa.or_(volume.c.name > last.name, sa.and_(volume.c.name == last.name, volume.c.id > last.id)))
    return tx.execute(query).all()


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


# --- attachments ---

def attachments(tx, volume_ids):
    """Read the attachments of several volumes with the names of the guests, oldest first. One statement for each 500."""
    found = []
    for start in range(0, len(volume_ids), 500):
        found += tx.execute(sa.select(attachment, instance.c.name.label('instance_name'))
                            .outerjoin(instance, instance.c.uuid == attachment.c.instance_uuid)
                            .where(attachment.c.volume_id.in_(volume_ids[start:start + 500]))
                            .order_by(attachment.c.created_at, attachment.c.id)).all()
    return found


def of_instance(tx, instance_uuid):
    """Read the attachments of a guest. One statement."""
    return tx.execute(sa.select(attachment).where(attachment.c.instance_uuid == instance_uuid).order_by(attachment.c.id)).all()


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
