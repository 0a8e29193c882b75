"""Looking at the database and the agents' journals while and after a soak runs. The rules themselves are in rules.py."""
import sqlite3

import sqlalchemy as sa

from migrator.conductor.db import tables
from tests.soak import rules


def migrations(tx):
    """Read all live migrations as rules.Rows."""
    m = tables.migration.c
    query = sa.select(m.id, m.instance_uuid, m.source_host, m.destination_host, m.status, m.phase, m.step)
    return [rules.Row(*row) for row in tx.execute(query.where(m.kind == 'live_migration').order_by(m.created_at))]


def catalogue(tx):
    """Read the guests as rules.catalogue takes them."""
    counts = {}
    for row in migrations(tx):
        all_, ended = counts.get(row.instance, (0, 0))
        counts[row.instance] = (all_ + 1, ended + row.terminal)
    return {uuid: (host, *counts.get(uuid, (0, 0))) for uuid, host in tx.execute(sa.select(tables.instance.c.uuid, tables.instance.c.host))}


def orphaned_locks(tx):
    """Read the locks of migrations that have ended or are not there, in one statement, so that nothing happens in between."""
    m, lock = tables.migration.c, tables.resource_lock.c
    rows = tx.execute(sa.select(lock.resource, lock.migration_id, m.status).outerjoin(tables.migration, m.id == lock.migration_id).where(
        sa.or_(m.id.is_(None), m.status.in_(sorted(rules.TERMINAL_WORDS)))))
    return [f'{row.resource} is locked by migration {row.migration_id}, which is {row.status or "gone"}' for row in rows]


def remains(tx):
    """Name locks, places and debts that are left. For when every migration has ended."""
    found = [f'lock left: {row.resource} of {row.migration_id}' for row in tx.execute(sa.select(tables.resource_lock))]
    found += [f'{row.places} places left at {row.host}' for row in tx.execute(sa.select(tables.service)) if row.places]
    found += [f'debt left: {row.host} owes {row.action} of {row.instance_uuid}: {row.reason}' for row in tx.execute(sa.select(tables.debt))
              if row.paid_at is None]
    return found


def journal(path, host):
    """Read an agent's journal as rules.journals takes it, without opening it for writing."""
    db = sqlite3.connect(f'file:{path}?mode=ro', uri=True, timeout=10)
    try:
        return [(host, op_id, method, state, bool(reported))
                for op_id, method, state, reported in db.execute('SELECT op_id, method, state, reported FROM operation')]
    finally:
        db.close()
