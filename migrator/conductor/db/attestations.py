"""Statements on attestations: who said that a host is off, for which migration, and what was known of the host."""
import uuid

import sqlalchemy as sa

from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import attestation, service


def insert(tx, migration_id, known, user, request_id):
    """Record one. known: the host's service row, with the database's time. One statement."""
    tx.execute(sa.insert(attestation).values(
        id=str(uuid.uuid4()), migration_id=migration_id, host=known.host, process_id=known.process_id, host_boot_id=known.host_boot_id,
        last_seen=known.last_seen, user=user, request_id=request_id, at=known.now))


def void(tx, migration_id, host):
    """The host has answered: what was attested of it does not hold. One statement."""
    tx.execute(sa.update(attestation).where(attestation.c.migration_id == migration_id, attestation.c.host == host,
                                            attestation.c.void_at.is_(None)).values(void_at=now_ms()))


def of_migration(tx, migration_id):
    """Read the attestations of a migration, oldest first, each with whether its host was heard of since. One statement."""
    since = sa.exists().where(service.c.host == attestation.c.host, service.c.last_seen > attestation.c.at,
                              service.c.last_seen != attestation.c.last_seen)     # any agent of the host
    heard = sa.or_(attestation.c.void_at.is_not(None), since)
    return tx.execute(sa.select(attestation, heard.label('heard')).where(attestation.c.migration_id == migration_id)
                      .order_by(attestation.c.at)).all()
