"""What the audit reads of the database."""
import sqlalchemy as sa

from migrator.conductor.audit import Instance, Known, Lock, Owed
from migrator.conductor.db.ledger import LIVE
from migrator.conductor.db.tables import debt, instance, migration, resource_lock, service
from migrator.states import AgentKind, Status


def read(tx, since, earlier=None):
    """Read all that the audit needs. Five statements. Returns Known.

    since: the database's time when the audit began; what ended later counts as at work, and what was paid later as owed. earlier: the
    first reading; what was at work or owed then counts as such now.
    """
    recent = sa.or_(LIVE, migration.c.finished_at >= since)
    working = tx.execute(sa.select(migration.c.id, migration.c.instance_uuid).where(recent)).all()
    locks = tx.execute(sa.select(resource_lock.c.resource, resource_lock.c.migration_id, migration.c.status).outerjoin(
        migration, migration.c.id == resource_lock.c.migration_id)).all()
    debts = tx.execute(sa.select(debt).where(sa.or_(debt.c.paid_at.is_(None), debt.c.paid_at >= since))).all()
    guests = tx.execute(sa.select(instance.c.uuid, instance.c.name, instance.c.host)).all()
    hosts = tx.execute(_HOSTS).all()
    owing = tuple(owed(row) for row in debts if row.paid_at is None and row.written_off_at is None)
    settled = (*(owed(row) for row in debts if row.paid_at is not None), *(earlier.debts + earlier.settled if earlier else ()))
    return Known(
        instances={row.uuid: Instance(row.name, row.host) for row in guests},
        busy=frozenset(row.instance_uuid for row in working) | (earlier.busy if earlier else frozenset()),
        live=frozenset(row.id for row in working) | (earlier.live if earlier else frozenset()),
        debts=owing,
        settled=settled,
        written_off=tuple(owed(row) for row in debts if row.paid_at is None and row.written_off_at is not None),
        locks=tuple(Lock(row.resource, row.migration_id, row.status or '', bool(row.status) and not Status(row.status).terminal)
                    for row in locks),
        storage={row.host: frozenset(row.facts.get('storage', {}).values()) for row in hosts},
        places={row.host: (row.places, row.held) for row in hosts})


def _hosts():
    """Compute agents with their counters of places and the live migrations that hold one: in one statement, and so of one moment."""
    admitted = sa.and_(LIVE, migration.c.kind == 'live_migration', migration.c.admitted.is_(sa.true()))
    ends = sa.union_all(*(sa.select(end.label('host')).where(admitted)
                          for end in (migration.c.source_host, migration.c.destination_host))).subquery()
    held = sa.select(ends.c.host, sa.func.count().label('held')).group_by(ends.c.host).subquery()
    return sa.select(service.c.host, service.c.facts, service.c.places, sa.func.coalesce(held.c.held, 0).label('held')) \
        .outerjoin(held, held.c.host == service.c.host).where(service.c.kind == AgentKind.COMPUTE.value)


_HOSTS = _hosts()


def owed(row):
    """Turn a row into what the audit compares with; for one that was written off, the reason is who did it and why."""
    reason = f'written off by {row.written_off_by or "somebody"}: {row.written_off_why}' if row.written_off_at else row.reason
    return Owed(row.id, row.host, row.instance_uuid, row.migration_id, row.action, reason, bool(row.refused))
