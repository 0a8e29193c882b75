"""What the audit reads of the database."""
import sqlalchemy as sa

from migrator.conductor import rivals
from migrator.conductor.audit import Instance, Known, Lock, Owed
from migrator.conductor.audit_volumes import Volume
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.ledger import LIVE
from migrator.conductor.db.tables import attachment, debt, instance, migration, resource_lock, service, volume
from migrator.states import AgentKind, Status, VolumeState


def read(tx, since, earlier=None):
    """Read all that the audit needs. Seven statements. Returns Known.

    since: the database's time when the audit began; what ended later counts as at work, and what was paid later as owed. earlier: the
    first reading; what was at work or owed then counts as such now.
    """
    recent = sa.or_(LIVE, migration.c.finished_at >= since)
    working = tx.execute(sa.select(migration.c.id, migration.c.instance_uuid, migration.c.volume_id).where(recent)).all()
    locks = tx.execute(sa.select(resource_lock.c.resource, resource_lock.c.migration_id, migration.c.status).outerjoin(
        migration, migration.c.id == resource_lock.c.migration_id)).all()
    debts = tx.execute(sa.select(debt).where(sa.or_(debt.c.paid_at.is_(None), debt.c.paid_at >= since))).all()
    guests = tx.execute(sa.select(instance.c.uuid, instance.c.name, instance.c.host)).all()
    agents = tx.execute(_AGENTS).all()
    volumes = tx.execute(sa.select(volume)).all()
    attachments = tx.execute(sa.select(attachment.c.id)).scalars().all()
    owing = tuple(owed(row) for row in debts if row.paid_at is None and row.written_off_at is None)
    settled = (*(owed(row) for row in debts if row.paid_at is not None), *(earlier.debts + earlier.settled if earlier else ()))
    return Known(
        instances={row.uuid: Instance(row.name, row.host) for row in guests},
        busy=frozenset(row.instance_uuid for row in working if row.instance_uuid) | (earlier.busy if earlier else frozenset()),
        live=frozenset(row.id for row in working) | (earlier.live if earlier else frozenset()),
        debts=owing,
        settled=settled,
        written_off=tuple(owed(row) for row in debts if row.paid_at is None and row.written_off_at is not None),
        locks=tuple(Lock(row.resource, row.migration_id, row.status or '', bool(row.status) and not Status(row.status).terminal)
                    for row in locks),
        storage={row.host: frozenset(row.facts.get('storage', {}).values()) for row in agents if row.kind == AgentKind.COMPUTE.value},
        places={named(row): (row.places, row.held) for row in agents},
        doubled={named(row): words for row in agents for words in [rivals.conflict(row)] if words},
        volumes={row.id: Volume(row.name, row.host, row.backend, row.pool, row.lun, row.status == VolumeState.AVAILABLE.value)
                 for row in volumes},
        attachments=frozenset(attachments) | (earlier.attachments if earlier else frozenset()),
        busy_volumes=frozenset(row.volume_id for row in working if row.volume_id) | (earlier.busy_volumes if earlier else frozenset()))


def named(row):
    """Name an agent: by its host, with its kind where that is not what is meant by a host."""
    return row.host if row.kind == AgentKind.COMPUTE.value else f'{row.host} ({row.kind} agent)'


def _agents():
    """Agents with their counters of places and the migrations that hold one: in one statement, and so of one moment."""
    admitted = sa.and_(LIVE, migration.c.admitted.is_(sa.true()))
    columns = ((migration.c.source_host, migration.c.source_agent), (migration.c.destination_host, migration.c.destination_agent))
    ends = sa.union(*(sa.select(migration.c.id, host.label('host'), kind.label('kind')).where(admitted)
                      for host, kind in columns)).subquery()       # each end once: both may be of one agent, which then gives one place
    held = sa.select(ends.c.host, ends.c.kind, sa.func.count().label('held')).group_by(ends.c.host, ends.c.kind).subquery()
    return sa.select(service, now_ms().label('now'), sa.func.coalesce(held.c.held, 0).label('held')) \
        .outerjoin(held, sa.and_(held.c.host == service.c.host, held.c.kind == service.c.kind))


_AGENTS = _agents()


def owed(row):
    """Turn a row into what the audit compares with; for one that was written off, the reason is who did it and why."""
    reason = f'written off by {row.written_off_by or "somebody"}: {row.written_off_why}' if row.written_off_at else row.reason
    return Owed(row.id, row.host, row.instance_uuid, row.migration_id, row.action, reason, bool(row.refused), row.agent,
                row.volume_id)
