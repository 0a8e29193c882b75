"""What callers see of arrays and volumes; the shapes are part of the API (doc/source/api.rst)."""
from migrator.conductor import places, rivals
from migrator.conductor.db.views import ends, is_up, moment


def backend_view(place, counted, down_after):
    """One backend. counted: of backends.counts. down_after: seconds without a heartbeat after which its agent is down."""
    agent, backend = place.agent, place.backend
    up = is_up(agent, down_after)
    why = (rivals.conflict(agent) or backend.offline) if up else ''
    pools = [pool_view(place, pool, counted) for pool in backend.pools]
    return {'name': place.name, 'host': agent.host, 'backend': backend.name, 'driver': backend.driver,
            'state': 'down' if not up else 'offline' if backend.offline else 'up', 'why': why,
            'enabled': bool(agent.enabled), 'disabled_reason': agent.disabled_reason, 'draining': bool(agent.draining),
            'types': list(backend.types), 'capabilities': list(backend.capabilities), 'array_id': backend.array_id, 'pools': pools,
            'total': sum(pool['total'] for pool in pools), 'free': sum(pool['free'] for pool in pools),
            'volumes': sum(many for (host, name, _), (many, _) in counted.items() if (host, name) == (agent.host, backend.name)),
            'debts': agent.owed, 'last_seen': moment(agent.last_seen), 'process_id': agent.process_id, 'rpc_version': agent.rpc_version}


def pool_view(place, pool, counted):
    """One pool. Sizes are bytes; promised: what of the free room requests will take that were accepted; allotted: what its volumes may
    come to take."""
    many, size = counted.get((place.agent.host, place.backend.name, pool.name), (0, 0))
    return {'name': f'{place.name}#{pool.name}', 'total': pool.total, 'free': pool.free,
            'promised': place.promised.get(pool.name, 0), 'volumes': many, 'allotted': size}


def volume_view(row, attached):
    """One volume. row: of volumes.get. attached: rows of volumes.attachments, of any volumes."""
    return {'id': row.id, 'name': row.name, 'size': row.size, 'type': row.type, 'multiattach': bool(row.multiattach),
            'pool': places.name_of(row.host, row.backend, row.pool), 'host': row.host, 'lun': row.lun, 'locator': row.locator,
            'status': row.state, 'migration_status': row.migration_status, 'error': row.error, 'locked_by': row.locked_by or '',
            'debts': row.owed, 'attachments': [attachment_view(a) for a in attached if a.volume_id == row.id],
            'created_at': moment(row.created_at), 'updated_at': moment(row.updated_at)}


def attachment_view(row):
    """One attachment."""
    return {'id': row.id, 'instance_uuid': row.instance_uuid, 'instance_name': row.instance_name or '',
            'host': row.instance_host or row.host, 'target': row.target, 'read_only': bool(row.read_only), 'status': row.status,
            'uri': row.connection.get('uri', ''), 'created_at': moment(row.created_at)}


def last_migration(row):
    """The last migration of a volume in short: how it stands, from where to where, which way it took and why. {} if there was none."""
    return {'id': row.id, 'status': row.status, 'reason': row.reason, 'progress': row.progress, **ends(row)} if row is not None else {}
