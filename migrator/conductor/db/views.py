"""What callers see: rows turned into plain values for the wire. The shapes are part of the API (doc/source/api.rst)."""
import datetime

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor import places, rivals, ways
from migrator.conductor.db import attestations, debts, hosts, ledger
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import OPEN_DEBT, debt, instance, migration, volume
from migrator.states import AgentKind, Status


def moment(ms):
    """Write a database time as ISO 8601 in UTC with milliseconds; '' for none."""
    if not ms:
        return ''
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')


def migration_view(row, owed=(), events=None, attested=None):
    """One migration. row: a migration row or anything with its attributes. events, attested: for `show` only."""
    view = {name: getattr(row, name) for name in (
        'id', 'kind', 'resource', 'instance_uuid', 'instance_name', 'volume_id', 'volume_name', 'source_host', 'destination_host',
        'status', 'step', 'attempt', 'direction', 'reason', 'error', 'no_return', 'progress', 'request_id', 'user')}
    view.update(ends(row))
    if Status(row.status).terminal and row.progress:
        view['progress'] = {**row.progress, 'active': False}
    view.update(abort_requested=bool(row.abort), needs_attention=row.status == Status.NEEDS_OPERATOR.value or bool(owed),
                created_at=moment(row.created_at), updated_at=moment(row.updated_at), looked_at=moment(row.looked_at),
                silent_seconds=silent_seconds(row), finished_at=moment(row.finished_at),
                statistics=row.facts.get('statistics', {}),
                debts=[{'id': d.id, 'host': d.host, 'action': d.action, 'reason': d.reason, 'refused': bool(d.refused)} for d in owed])
    if attested is not None:
        view['attestations'] = [{
            'host': a.host, 'user': a.user, 'at': moment(a.at), 'last_seen': moment(a.last_seen), 'host_boot_id': a.host_boot_id,
            'process_id': a.process_id, 'heard_since': bool(a.heard)} for a in attested]
    if events is not None:
        view['events'] = [{'at': moment(e.at), 'status': e.status, 'step': e.step, 'what': e.what, 'reason': e.reason, 'user': e.user,
                           'request_id': e.request_id} for e in events]
    return view


def ends(row):
    """From where to where: hosts for a guest, pools for a volume that moves; and which way that took, and why."""
    if row.kind != 'volume_migration' or not row.plan:
        return {'from': row.source_host, 'to': row.destination_host}
    here, there = row.plan['source'], row.plan['target']
    return {'from': places.name_of(here['host'], here['backend'], here['pool']),
            'to': places.name_of(there['host'], there['backend'], there['pool']),
            **ways.taken(row.request.get('options', {}), row.facts)}


def silent_seconds(row):
    """For how many seconds a host that is waited for has not answered; 0 if none is. row: a migration row, with `now` if it was read."""
    if not row.silent_since or Status(row.status).terminal:
        return 0
    return max(0, getattr(row, 'now', row.updated_at) - row.silent_since) // 1000


def show_migration(tx, migration_id):
    """Read one migration with debts, attestations and timeline. Four statements."""
    row = tx.execute(sa.select(migration, now_ms().label('now')).where(migration.c.id == migration_id)).first()
    if row is None:
        raise exceptions.MigrationNotFound(f'there is no migration {migration_id}')
    return migration_view(row, debts.of_migrations(tx, [migration_id]), ledger.events(tx, migration_id),
                          attestations.of_migration(tx, migration_id))


def list_migrations(tx, filters, limit, marker):
    """Read migrations, newest first. marker: id of the last one of the previous page. Two statements, three with a marker."""
    query = sa.select(migration, now_ms().label('now')).order_by(migration.c.created_at.desc(), migration.c.id.desc()).limit(limit)
    if filters.get('instance'):
        query = query.where(sa.or_(migration.c.instance_uuid == filters['instance'], migration.c.instance_name == filters['instance']))
    if filters.get('host'):
        query = query.where(sa.or_(migration.c.source_host == filters['host'], migration.c.destination_host == filters['host']))
    if filters.get('volume'):
        query = query.where(sa.or_(migration.c.volume_id == filters['volume'], migration.c.volume_name == filters['volume']))
    if filters.get('status'):
        query = query.where(migration.c.status == filters['status'])
    if filters.get('kind'):
        kinds = filters['kind']
        query = query.where(migration.c.kind.in_([kinds] if isinstance(kinds, str) else kinds))
    if filters.get('needs_attention'):
        owing = sa.select(debt.c.migration_id).where(OPEN_DEBT)
        query = query.where(sa.or_(migration.c.status == Status.NEEDS_OPERATOR.value, migration.c.id.in_(owing)))
    if marker:
        last = tx.execute(sa.select(migration).where(migration.c.id == marker)).first()
        if last is None:
            raise exceptions.MigrationNotFound(f'there is no migration {marker}')
        query = query.where(sa.or_(migration.c.created_at < last.created_at,
                                   sa.and_(migration.c.created_at == last.created_at, migration.c.id < last.id)))
    rows = tx.execute(query).all()
    owed = {}
    for d in debts.of_migrations(tx, [r.id for r in rows]):
        owed.setdefault(d.migration_id, []).append(d)
    return [migration_view(row, owed.get(row.id, ())) for row in rows]


def nothing_of(tx, filters):
    """Give the empty list for filters that match nothing, unless the host, the instance or the volume that they name was never known.

    What was deleted is known by its migrations. An empty list for a name that is mistyped would read like an answer. Up to
    six statements. Raises HostNotFound, InstanceNotFound and VolumeNotFound.
    """
    host, guest, known = filters.get('host'), filters.get('instance'), filters.get('volume')
    if host and not (hosts.listing(tx, host) or hosts.listing(tx, host, AgentKind.VOLUME)):
        raise exceptions.HostNotFound(f'there is no host {host}')
    if guest and not _ever(tx, guest, (instance.c.uuid, instance.c.name), (migration.c.instance_uuid, migration.c.instance_name)):
        raise exceptions.InstanceNotFound(f'there is no instance {guest}')
    if known and not _ever(tx, known, (volume.c.id, volume.c.name), (migration.c.volume_id, migration.c.volume_name)):
        raise exceptions.VolumeNotFound(f'there is no volume {known}')
    return []


def _ever(tx, wanted, *columns):
    """Tell whether one of the tables has it by its identity or its name. columns: pairs of these."""
    return any(tx.execute(sa.select(key).where(sa.or_(key == wanted, name == wanted)).limit(1)).first() for key, name in columns)


def debt_view(row):
    """One debt. row: as debts.listing reads it."""
    return {'id': row.id, 'host': row.host, 'agent': row.agent, 'instance_uuid': row.instance_uuid, 'instance_name': row.instance_name,
            'volume_id': row.volume_id, 'volume_name': row.volume_name,
            'migration_id': row.migration_id, 'action': row.action, 'reason': row.reason, 'refused': bool(row.refused),
            'state': 'written off' if row.written_off_at else 'refused' if row.refused else 'open',
            'attempts': row.attempt, 'created_at': moment(row.created_at), 'written_off_at': moment(row.written_off_at),
            'written_off_by': row.written_off_by, 'written_off_why': row.written_off_why}


def host_view(row, down_after):
    """One host. down_after: seconds without a heartbeat after which it is down."""
    facts = row.facts
    return {'name': row.host, 'state': 'up' if is_up(row, down_after) else 'down', 'enabled': bool(row.enabled),
            'disabled_reason': row.disabled_reason, 'conflict': rivals.conflict(row), 'draining': bool(row.draining),
            'instances': row.guests, 'migrations': row.places,
            'debts': row.owed, 'last_seen': moment(row.last_seen), 'process_id': row.process_id, 'rpc_version': row.rpc_version,
            **{name: facts.get(name, '') for name in ('hypervisor_name', 'hypervisor_type', 'availability_zone')},
            **{name: facts.get(name, 0) for name in ('hypervisor_version', 'cpus', 'memory_mib', 'memory_free_mib')}}


def is_up(row, down_after):
    """True when the host was heard of lately, by the database's clock."""
    return lately(row.now, row.last_seen, down_after)


def lately(now, seen, seconds):
    """Tell whether an agent was heard of within so many seconds. now, seen: in milliseconds of the database's clock.

    If that clock was set back, what was seen lies ahead of it. One that lives is heard of again at once; one that does not must not look
    alive until the clock is there again.
    """
    return abs(now - seen) < seconds * 1000


def instance_view(row, down_after):
    """One guest. down_after: seconds without a heartbeat after which its host is down: then its state is what the host told last."""
    seen = row.host_seen or 0
    return {'uuid': row.uuid, 'name': row.name, 'host': row.host, 'state': row.state, 'memory_mib': row.memory_mib, 'vcpus': row.vcpus,
            'disks': row.disks, 'managed': bool(row.managed), 'note': row.note, 'locked_by': row.locked_by or '', 'debts': row.owed,
            'sighting': {'host': row.sighted_host, 'state': row.sighted_state} if row.sighted_host else {},
            'host_state': 'up' if lately(row.now, seen, down_after) else 'down', 'host_last_seen': moment(seen),
            'host_silent_seconds': max(0, row.now - seen) // 1000 if seen else 0, 'updated_at': moment(row.updated_at)}
