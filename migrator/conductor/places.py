"""Names of where a volume is: `host@backend#pool`, and of a backend, `host@backend`. Pure."""
from migrator import exceptions
from migrator.rpc import facts, volume_facts


def backend_of(text):
    """Read the name of a backend. Returns (host, backend); raises InvalidRequest."""
    host, at, backend = text.partition('@') if isinstance(text, str) else ('', '', '')
    if not at or not facts.HOST.match(host) or not volume_facts.BACKEND.match(backend):
        raise exceptions.InvalidRequest(f'{text!r:.200} is not the name of a backend: that is host@backend')
    return host, backend


def pool_of(text):
    """Read the name of a pool. Returns (host, backend, pool), the pool '' if only a backend is named; raises InvalidRequest."""
    head, mark, pool = text.partition('#') if isinstance(text, str) else ('', '', '')
    try:
        host, backend = backend_of(head)
    except exceptions.InvalidRequest:
        host = ''
    if not host or (mark and not volume_facts.BACKEND.match(pool)):
        raise exceptions.InvalidRequest(f'{text!r:.200} is not the name of a pool: that is host@backend#pool, or host@backend')
    return host, backend, pool


def name_of(host, backend, pool=''):
    """Write the name of a pool, or of a backend."""
    return f'{host}@{backend}#{pool}' if pool else f'{host}@{backend}'
