"""Statements on room of pools that was promised to workflows.

A row is written in the transaction that accepts the request, by whoever holds the rows of the agents that serve the pool
(`backends.held`), and nobody ever gives one back: it counts by how its workflow stands, see `conductor.room`. So no process that dies can
leave room taken.
"""
import sqlalchemy as sa

from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import migration, reservation
from migrator.conductor.room import Reservation

#: Milliseconds after the end of its workflow for which a reservation is read. An array that was not looked at for so long is offline.
READ_FOR = 3_600_000


def insert(tx, migration_id, host, backend, pool, size):
    """Promise a workflow room. size: bytes. One statement."""
    tx.execute(sa.insert(reservation).values(migration_id=migration_id, host=host, backend=backend, pool=pool, bytes=size))


def listing(tx):
    """Read what may still count, as Reservations. One statement."""
    rows = tx.execute(sa.select(reservation, migration.c.finished_at, migration.c.progress, migration.c.facts)
                      .join(migration, migration.c.id == reservation.c.migration_id)
                      .where(sa.or_(migration.c.finished_at.is_(None), migration.c.finished_at > now_ms() - READ_FOR))).all()
    return [Reservation(row.host, row.backend, row.pool, row.bytes, row.finished_at, row.progress, row.facts) for row in rows]
