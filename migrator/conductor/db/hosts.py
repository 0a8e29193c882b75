"""Statements on agents (the `service` table): heartbeats, enabling, and the guarded counter of places for migrations.

An agent is known by its kind and its host; compute agents are what is meant where no kind is given.
"""
import sqlalchemy as sa

from migrator.conductor import rivals
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import OPEN_DEBT, PAYABLE_DEBT, debt, instance, service, volume
from migrator.rpc import facts
from migrator.states import AgentKind


def _is(kind):
    return service.c.kind == AgentKind(kind).value


def get_many(tx, hosts, kind=AgentKind.COMPUTE):
    """Read several agents of one kind with the database's time, and keep others from changing them until the transaction ends.

    One statement. Returns a dict by host; `owing` is how many cleanups the present agent has not even tried, though it is their turn.
    The order of locking is that of the names, so that two transactions cannot deadlock; who needs several kinds reads them in the order
    of the kinds' names.
    """
    owing = sa.select(sa.func.count()).where(debt.c.host == service.c.host, debt.c.agent == service.c.kind, PAYABLE_DEBT,
                                             debt.c.tried_by != service.c.process_id).correlate(service).scalar_subquery()
    rows = tx.execute(sa.select(service, now_ms().label('now'), owing.label('owing')).where(_is(kind), service.c.host.in_(hosts))
                      .order_by(service.c.host).with_for_update()).all()
    return {row.host: row for row in rows}


def agents_of(tx, host):
    """Read all agents of a host, by kind, with the database's time, and keep others from changing them. One statement."""
    rows = tx.execute(sa.select(service, now_ms().label('now')).where(service.c.host == host)
                      .order_by(service.c.kind).with_for_update()).all()
    return {row.kind: row for row in rows}


def listing(tx, host=None, kind=AgentKind.COMPUTE):
    """Read all agents of a kind, or that of one host, with numbers of instances, volumes and open debts. One statement."""
    guests = sa.select(sa.func.count()).where(instance.c.host == service.c.host).scalar_subquery()
    volumes = sa.select(sa.func.count()).where(volume.c.host == service.c.host).scalar_subquery()
    owed = sa.select(sa.func.count()).where(debt.c.host == service.c.host, debt.c.agent == service.c.kind, OPEN_DEBT).scalar_subquery()
    query = sa.select(service, now_ms().label('now'), guests.label('guests'), volumes.label('volumes'), owed.label('owed')) \
        .where(_is(kind)).order_by(service.c.host)
    return tx.execute(query.where(service.c.host == host) if host else query).all()


def everyone(tx, host=None):
    """Read all hosts, or one, each once: by its compute agent, or by its volume agent if it has no other. Two statements."""
    found = {row.host: row for kind in (AgentKind.VOLUME, AgentKind.COMPUTE) for row in listing(tx, host, kind)}
    return [found[name] for name in sorted(found)]


def beat(tx, known, heartbeat, kind=AgentKind.COMPUTE, told=None):
    """Record a heartbeat. known: the present row, or None for a new agent. told: what is kept of what it says of itself as plain values;
    None keeps what is known; a compute agent's is taken from the heartbeat. One statement."""
    values = {'process_id': heartbeat.process_id, 'host_boot_id': heartbeat.host_boot_id, 'sequence': heartbeat.sequence,
              'monotonic': heartbeat.monotonic, 'last_seen': now_ms(), 'rpc_version': heartbeat.rpc_version,
              'draining': heartbeat.draining}
    if kind == AgentKind.COMPUTE and (heartbeat.facts.hypervisor_name or known is None):
        told = facts.to_wire(heartbeat.facts)
    if told is not None or known is None:
        values['facts'] = told or {}
    if known is None:
        tx.execute(sa.insert(service).values(host=heartbeat.host, kind=AgentKind(kind).value, enabled=True, disabled_reason='', places=0,
                                             **values))
    else:
        if known.process_id != heartbeat.process_id:
            values['former_process_id'] = known.process_id
        if known.rival_process_id == heartbeat.process_id:
            values.update(rivals.NONE)
        tx.execute(sa.update(service).where(_is(kind), service.c.host == heartbeat.host).values(**values))


def note_rival(tx, host, values, kind=AgentKind.COMPUTE):
    """Remember a process that is heard of beside an agent's present one. values: of conductor.rivals. One statement."""
    tx.execute(sa.update(service).where(_is(kind), service.c.host == host).values(**values))


def versions(tx, down_after, kind=AgentKind.COMPUTE):
    """List the RPC versions that agents of a kind announced which were heard of within `down_after` seconds. One statement."""
    return tx.execute(sa.select(service.c.rpc_version).where(_is(kind), service.c.last_seen > now_ms() - int(down_after * 1000))
                      .distinct()).scalars().all()


def set_enabled(tx, host, enabled, reason, kind=AgentKind.COMPUTE):
    """Enable or disable an agent. One statement. Returns False if there is no such agent."""
    done = tx.execute(sa.update(service).where(_is(kind), service.c.host == host).values(enabled=enabled, disabled_reason=reason[:255]))
    return done.rowcount == 1


def obstacle(rows, cap):
    """Say in words why a migration of these hosts must wait, '' if it need not. rows, cap: as for take_places.

    What a host owes comes before what it is given; a cleanup that its agent has tried and could not do holds up nobody but its guest.
    """
    doubled = [words for words in map(rivals.conflict, rows) if words]
    if doubled:
        return f'waits: {doubled[0]}'
    owing = [row.host for row in rows if row.owing]
    if owing:
        return f'waits until {" and ".join(owing)} has done the cleanups that are owed there'
    return 'waits for a free place at its hosts' if any(row.places >= cap for row in rows) else ''


def take_places(tx, rows, cap):
    """Take one place at each agent, all or nothing, never above the cap. True if there was room. One statement for each kind, or none.

    rows: what get_many read in the same transaction, and therefore holds; so nobody else can take what was seen to be free.
    """
    if obstacle(rows, cap):
        return False
    return all(tx.execute(sa.update(service).where(_is(kind), service.c.host.in_(names), service.c.places < cap)
                          .values(places=service.c.places + 1)).rowcount == len(names) for kind, names in by_kind(rows).items())


def by_kind(rows):
    """Give the names of hosts by the kind of their agents, in the order of the kinds' names. Pure."""
    found = {}
    for row in sorted(rows, key=lambda row: (row.kind, row.host)):
        found.setdefault(row.kind, []).append(row.host)
    return found


def give_places(tx, hosts, kind=AgentKind.COMPUTE):
    """Give the places at agents of one kind back. One statement."""
    tx.execute(sa.update(service).where(_is(kind), service.c.host.in_(hosts), service.c.places > 0).values(places=service.c.places - 1))
