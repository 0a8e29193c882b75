"""What the audit reads of the database."""
import sqlalchemy as sa

from migrator.conductor.audit import Instance, Known, Lock, Owed
from migrator.conductor.db.ledger import LIVE
from migrator.conductor.db.tables import debt, instance, migration, resource_lock, service
from migrator.states import AgentKind, Status


def read(tx, since, earlier=None):
    """Read all that the audit needs. Five statements. Returns Known.

    since: the database's time when the audit began; what ended later counts as at work. earlier: the first reading; what was at work
    then counts as such now.
    """
    recent = sa.or_(LIVE, migration.c.finished_at >= since)
    working = tx.execute(sa.select(migration.c.id, migration.c.instance_uuid).where(recent)).all()
    locks = tx.execute(sa.select(resource_lock.c.resource, resource_lock.c.migration_id, migration.c.status).outerjoin(
        migration, migration.c.id == resource_lock.c.migration_id)).all()
    debts = tx.execute(sa.select(debt).where(debt.c.paid_at.is_(None))).all()
    guests = tx.execute(sa.select(instance.c.uuid, instance.c.name, instance.c.host)).all()
    storage = tx.execute(sa.select(service.c.host, service.c.facts).where(service.c.kind == AgentKind.COMPUTE.value)).all()
    return Known(
        instances={row.uuid: Instance(row.name, row.host) for row in guests},
        busy=frozenset(row.instance_uuid for row in working) | (earlier.busy if earlier else frozenset()),
        live=frozenset(row.id for row in working) | (earlier.live if earlier else frozenset()),
        debts=tuple(owed(row) for row in debts if row.written_off_at is None),
        written_off=tuple(owed(row) for row in debts if row.written_off_at is not None),
        locks=tuple(Lock(row.resource, row.migration_id, row.status or '', bool(row.status) and not Status(row.status).terminal)
                    for row in locks),
        storage={row.host: frozenset(row.facts.get('storage', {}).values()) for row in storage})


def owed(row):
    """Turn a row into what the audit compares with; for one that was written off, the reason is who did it and why."""
    reason = f'written off by {row.written_off_by or "somebody"}: {row.written_off_why}' if row.written_off_at else row.reason
    return Owed(row.id, row.host, row.instance_uuid, row.migration_id, row.action, reason, bool(row.refused))
