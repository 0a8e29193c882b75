"""What callers see of arrays and volumes; the shapes are part of the API (doc/source/api.rst)."""
from migrator.conductor.db.views import is_up, moment


def backend_view(place, counted, down_after):
    """One backend. counted: of backends.counts. down_after: seconds without a heartbeat after which its agent is down."""
    agent, backend = place.agent, place.backend
    up = is_up(agent, down_after)
    pools = [pool_view(place, pool, counted) for pool in backend.pools]
    return {'name': place.name, 'host': agent.host, 'backend': backend.name, 'driver': backend.driver,
            'state': 'down' if not up else 'offline' if backend.offline else 'up', 'why': backend.offline if up else '',
            'enabled': bool(agent.enabled), 'disabled_reason': agent.disabled_reason, 'draining': bool(agent.draining),
            'types': list(backend.types), 'capabilities': list(backend.capabilities), 'array_id': backend.array_id, 'pools': pools,
            'total': sum(pool['total'] for pool in pools), 'free': sum(pool['free'] for pool in pools),
            'volumes': sum(many for (host, name, _), (many, _) in counted.items() if (host, name) == (agent.host, backend.name)),
            'debts': agent.owed, 'last_seen': moment(agent.last_seen), 'process_id': agent.process_id, 'rpc_version': agent.rpc_version}


def pool_view(place, pool, counted):
    """One pool. Sizes are bytes; allotted: what its volumes may come to take."""
    many, size = counted.get((place.agent.host, place.backend.name, pool.name), (0, 0))
    return {'name': f'{place.name}#{pool.name}', 'total': pool.total, 'free': pool.free, 'volumes': many, 'allotted': size}
