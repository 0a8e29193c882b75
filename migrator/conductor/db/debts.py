"""Statements on debts: cleanups that a host owes."""
import uuid

import sqlalchemy as sa

from migrator.conductor.db import ledger
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import OPEN_DEBT, PAYABLE_DEBT, debt, instance, migration, service
from migrator.states import AgentKind


def insert(tx, record, host, action, arguments, reason, agent=AgentKind.COMPUTE, waits_for=''):
    """Name a cleanup that could not be done. One statement. Returns its id.

    agent: which kind of agent of the host owes it. waits_for: id of a debt that is to be settled first.
    """
    made = str(uuid.uuid4())
    tx.execute(sa.insert(debt).values(
        id=made, host=host, agent=AgentKind(agent).value, waits_for=waits_for, instance_uuid=record.row.instance_uuid,
        volume_id=getattr(record.row, 'volume_id', ''), migration_id=record.row.id, action=action, arguments=arguments,
        reason=reason[:4000], attempt=1, next_wakeup=record.now, created_at=record.now))
    return made


def due(tx, host_down_after, limit=50, horizon=None):
    """Read debts whose time and turn have come and whose agent is up. One statement.

    horizon: see ledger.due. With them the agent's process, the migration's kind and epoch, and where the catalogue has the guest
    and where else it was seen.
    """
    return tx.execute(
        sa.select(debt, service.c.process_id.label('process_id'), migration.c.epoch.label('epoch'), migration.c.kind.label('kind'),
                  instance.c.host.label('instance_host'), instance.c.sighted_host, instance.c.sighted_state)
        .join(service, sa.and_(service.c.host == debt.c.host, service.c.kind == debt.c.agent))
        .join(migration, migration.c.id == debt.c.migration_id)
        .outerjoin(instance, instance.c.uuid == debt.c.instance_uuid)
        .where(PAYABLE_DEBT, ledger.come(debt.c.next_wakeup, horizon), service.c.draining.is_(False),
               service.c.last_seen > now_ms() - int(host_down_after * 1000)).order_by(debt.c.next_wakeup).limit(limit)).all()


def claim(tx, row, wait_ms):
    """Keep other conductors away from a debt for a while. One statement. False if another was faster."""
    done = tx.execute(sa.update(debt).where(debt.c.id == row.id, OPEN_DEBT, debt.c.next_wakeup == row.next_wakeup)
                      .values(next_wakeup=now_ms() + int(wait_ms)))
    return done.rowcount == 1


def paid(tx, debt_id):
    """It has been done. One statement."""
    tx.execute(sa.update(debt).where(debt.c.id == debt_id, OPEN_DEBT).values(paid_at=now_ms()))


def again(tx, debt_id, attempt, reason, wait_ms, process_id='', refused=False):
    """It failed: try it later under a new operation. Only for the attempt that was reported. One statement.

    process_id: the agent that tried it. refused: its precondition is false.
    """
    tx.execute(sa.update(debt).where(debt.c.id == debt_id, debt.c.attempt == attempt, OPEN_DEBT)
               .values(attempt=attempt + 1, reason=reason[:4000], tried_by=process_id, refused=refused,
                       next_wakeup=now_ms() + int(wait_ms)))


def wake_host(tx, host, kind=AgentKind.COMPUTE):
    """An agent is back: its debts are due now. One statement."""
    tx.execute(sa.update(debt).where(debt.c.host == host, debt.c.agent == AgentKind(kind).value, OPEN_DEBT).values(next_wakeup=now_ms()))


def write_off(tx, debt_id, user, why):
    """Give up a debt; the row stays. One statement. Returns False if it was not open."""
    done = tx.execute(sa.update(debt).where(debt.c.id == debt_id, OPEN_DEBT)
                      .values(written_off_at=now_ms(), written_off_by=user, written_off_why=why))
    return done.rowcount == 1


def listing(tx, host=None, limit=None, marker=None, debt_id=None):
    """Read debts that are not paid, oldest first, those that were written off too; each with what it concerns by name. One statement.

    marker: id of the last one of the previous page. debt_id: only this one, paid or not.
    """
    query = sa.select(debt, migration.c.instance_name.label('instance_name'), migration.c.volume_name.label('volume_name')) \
        .join(migration, migration.c.id == debt.c.migration_id).order_by(debt.c.created_at, debt.c.id).limit(limit)
    query = query.where(debt.c.id == debt_id if debt_id else debt.c.paid_at.is_(None))
    if host:
        query = query.where(debt.c.host == host)
    if marker:
        last = sa.select(debt.c.created_at).where(debt.c.id == marker).scalar_subquery()
        query = query.where(sa.or_(debt.c.created_at > last, sa.and_(debt.c.created_at == last, debt.c.id > marker)))
    return tx.execute(query).all()


def get(tx, debt_id):
    """Read one debt, or None. One statement."""
    return tx.execute(sa.select(debt).where(debt.c.id == debt_id)).first()


def of_migrations(tx, ids):
    """Read the open debts of several migrations. One statement."""
    return tx.execute(sa.select(debt).where(debt.c.migration_id.in_(ids), OPEN_DEBT)).all() if ids else []


def of_instance(tx, instance_uuid):
    """Read the open debts that name a guest. One statement."""
    return tx.execute(sa.select(debt).where(debt.c.instance_uuid == instance_uuid, OPEN_DEBT)).all()


def of_volume(tx, volume_id):
    """Read the open debts that name a volume. One statement."""
    return tx.execute(sa.select(debt).where(debt.c.volume_id == volume_id, OPEN_DEBT)).all()
