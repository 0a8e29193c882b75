"""Statements on agents (the `service` table): heartbeats, enabling, and the guarded counter of places for migrations."""
import sqlalchemy as sa

from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import OPEN_DEBT, debt, instance, service
from migrator.rpc import facts


def get_many(tx, hosts):
    """Read several hosts with the database's time, and keep others from changing them until the transaction ends.

    One statement. Returns a dict by name; `owing` is how many cleanups the host's present agent has not even tried. The order of locking is
    that of the names, so that two transactions cannot deadlock.
    """
    owing = sa.select(sa.func.count()).where(debt.c.host == service.c.host, OPEN_DEBT,
                                             debt.c.tried_by != service.c.process_id).correlate(service).scalar_subquery()
    rows = tx.execute(sa.select(service, now_ms().label('now'), owing.label('owing')).where(service.c.host.in_(hosts))
                      .order_by(service.c.host).with_for_update()).all()
    return {row.host: row for row in rows}


def listing(tx, host=None):
    """Read all hosts, or one, with numbers of instances and open debts. One statement."""
    guests = sa.select(sa.func.count()).where(instance.c.host == service.c.host).scalar_subquery()
    owed = sa.select(sa.func.count()).where(debt.c.host == service.c.host, OPEN_DEBT).scalar_subquery()
    query = sa.select(service, now_ms().label('now'), guests.label('guests'), owed.label('owed')).order_by(service.c.host)
    return tx.execute(query.where(service.c.host == host) if host else query).all()


def beat(tx, known, heartbeat):
    """Record a heartbeat. known: the present row, or None for a new host. One statement."""
    values = {'process_id': heartbeat.process_id, 'host_boot_id': heartbeat.host_boot_id, 'sequence': heartbeat.sequence,
              'monotonic': heartbeat.monotonic, 'last_seen': now_ms(), 'rpc_version': heartbeat.rpc_version,
              'draining': heartbeat.draining}
    if heartbeat.facts.hypervisor_name or known is None:
        values['facts'] = facts.to_wire(heartbeat.facts)
    if known is None:
        tx.execute(sa.insert(service).values(host=heartbeat.host, kind='compute', enabled=True, disabled_reason='', places=0, **values))
    else:
        if known.process_id != heartbeat.process_id:
            values['former_process_id'] = known.process_id
        tx.execute(sa.update(service).where(service.c.host == heartbeat.host).values(**values))


def versions(tx, down_after):
    """List the RPC versions that agents announced which were heard of within `down_after` seconds. One statement."""
    return tx.execute(sa.select(service.c.rpc_version).where(service.c.last_seen > now_ms() - int(down_after * 1000))
                      .distinct()).scalars().all()


def set_enabled(tx, host, enabled, reason):
    """Enable or disable a host. One statement. Returns False if there is no such host."""
    done = tx.execute(sa.update(service).where(service.c.host == host).values(enabled=enabled, disabled_reason=reason[:255]))
    return done.rowcount == 1


def obstacle(rows, cap):
    """Say in words why a migration of these hosts must wait, '' if it need not. rows, cap: as for take_places.

    What a host owes comes before what it is given; a cleanup that its agent has tried and could not do holds up nobody but its guest.
    """
    owing = [row.host for row in rows if row.owing]
    if owing:
        return f'waits until {" and ".join(owing)} has done the cleanups that are owed there'
    return 'waits for a free place at its hosts' if any(row.places >= cap for row in rows) else ''


def take_places(tx, rows, cap):
    """Take one place at each host, all or nothing, never above the cap. True if there was room. One statement, none if not.

    rows: what get_many read in the same transaction, and therefore holds.
    """
    if obstacle(rows, cap):
        return False
    names = [row.host for row in rows]
    done = tx.execute(sa.update(service).where(service.c.host.in_(names), service.c.places < cap).values(places=service.c.places + 1))
    return done.rowcount == len(names)


def give_places(tx, hosts):
    """Give the places back. One statement."""
    tx.execute(sa.update(service).where(service.c.host.in_(hosts), service.c.places > 0).values(places=service.c.places - 1))
