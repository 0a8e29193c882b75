"""Statements on guests. Rows are made and changed by heartbeats and by the commits of workflows, and deleted only by the latter."""
import hashlib

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import OPEN_DEBT, debt, instance, resource_lock, service
from migrator.rpc import facts
from migrator.states import AgentKind, GuestState, InstanceState

#: How much of what a host says of a guest is kept, in characters.
LONGEST_NOTE = 500
#: How a host's word for a guest is called in the catalogue.
STATE = {GuestState.RUNNING: InstanceState.RUNNING, GuestState.PAUSED: InstanceState.PAUSED, GuestState.OFF: InstanceState.STOPPED}

#: How many guests of one name an error names.
MOST_NAMED = 20


def resource(uuid):
    """Name the lock of a guest."""
    return f'instance:{uuid}'


def name_resource(name):
    """Name the lock of a name, which a guest is to bear that is being made."""
    return f'instance-name:{hashlib.sha256(name.encode()).hexdigest()}'


def _query():
    owed = sa.select(sa.func.count()).where(debt.c.instance_uuid == instance.c.uuid, OPEN_DEBT).scalar_subquery()
    return sa.select(instance, resource_lock.c.migration_id.label('locked_by'), owed.label('owed'), service.c.last_seen.label('host_seen'),
                     now_ms().label('now')).outerjoin(
        resource_lock, resource_lock.c.resource == sa.literal('instance:').concat(instance.c.uuid)).outerjoin(
        service, sa.and_(service.c.host == instance.c.host, service.c.kind == AgentKind.COMPUTE.value))


def get(tx, uuid_or_name):
    """Read one guest with its lock, its number of debts and when its host was heard of. One statement.

    Raises InstanceNotFound, or InvalidRequest for two of a name.
    """
    rows = [*several(tx, [uuid_or_name]).values()] if facts.UUID.match(uuid_or_name) else named(tx, uuid_or_name)
    if not rows:
        raise exceptions.InstanceNotFound(f'there is no instance {uuid_or_name}')
    if len(rows) > 1:
        some = ', '.join(f'{row.uuid} on {row.host}' for row in rows[:MOST_NAMED])
        more = f' and {len(rows) - MOST_NAMED} more' if len(rows) > MOST_NAMED else ''
        raise exceptions.InvalidRequest(f'more than one instance has the name {uuid_or_name}; give the uuid of one: {some}{more}')
    return rows[0]


def named(tx, name):
    """Read the guests of a name, letter by letter, which not every database compares like that. One statement."""
    rows = tx.execute(_query().where(instance.c.name == name).order_by(instance.c.host, instance.c.uuid)).all()
    return [row for row in rows if row.name == name]


def listing(tx, host=None, state=None, limit=1000, marker=None):
    """Read guests by name. marker: uuid of the last one of the previous page. One statement, two with a marker."""
    query = _query().order_by(instance.c.name, instance.c.uuid).limit(limit)
    if host:
        query = query.where(instance.c.host == host)
    if state:
        query = query.where(instance.c.state == state)
    if marker:
        last = get(tx, marker)
        query = query.where(sa.or_(instance.c.name > last.name, sa.and_(instance.c.name == last.name, instance.c.uuid > last.uuid)))
    return tx.execute(query).all()


def several(tx, uuids):
    """Read several guests by uuid, as a dict. One statement for each 500."""
    found = {}
    for start in range(0, len(uuids), 500):
        rows = tx.execute(_query().where(instance.c.uuid.in_(uuids[start:start + 500]))).all()
        found.update({row.uuid: row for row in rows})
    return found


def unlisted(tx, host, listed):
    """Name the guests that the catalogue has at a host, or that were sighted there, and the host did not list. One statement."""
    here = sa.and_(instance.c.host == host, instance.c.state != InstanceState.UNKNOWN.value)
    found = tx.execute(sa.select(instance.c.uuid).where(sa.or_(here, instance.c.sighted_host == host))).scalars()
    return [uuid for uuid in found if uuid not in listed]


def values(guest, host):
    """Turn a host's description of a guest into column values."""
    name = guest.name[:instance.c.name.type.length]
    return {'name': name, 'host': host, 'state': STATE[guest.state].value, 'memory_mib': guest.memory_mib, 'vcpus': guest.vcpus,
            'disks': facts.to_wire(guest.disks), 'boot_files': list(guest.boot_files), 'managed': guest.managed,
            'note': guest.note[:LONGEST_NOTE]}


def insert(tx, uuid, columns):
    """Write a new guest. One statement."""
    tx.execute(sa.insert(instance).values(uuid=uuid, updated_at=now_ms(), **columns))


def update(tx, uuid, **columns):
    """Change a guest. One statement."""
    tx.execute(sa.update(instance).where(instance.c.uuid == uuid).values(updated_at=now_ms(), **columns))


def mark_unknown(tx, uuids):
    """Their host does not list them any more; the rows stay, for a missing report proves nothing. One statement for each 500."""
    for start in range(0, len(uuids), 500):
        tx.execute(sa.update(instance).where(instance.c.uuid.in_(uuids[start:start + 500]))
                   .values(state=InstanceState.UNKNOWN.value, updated_at=now_ms()))


def delete(tx, uuid):
    """Forget a guest that a workflow deleted. One statement."""
    tx.execute(sa.delete(instance).where(instance.c.uuid == uuid))
