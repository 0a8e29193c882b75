"""Where a volume can be: which pools of which backends may take it, and of several the one with the most room. Pure."""
from migrator import exceptions
from migrator.conductor import places


def words(count):
    """Write bytes for a sentence."""
    for unit, size in (('TiB', 1 << 40), ('GiB', 1 << 30), ('MiB', 1 << 20), ('KiB', 1 << 10)):
        if count >= size:
            return f'{count / size:.1f} {unit}'
    return f'{count} bytes'


def check_backend(place, usable):
    """Raise a typed error unless a backend can be worked with now. place: db.backends.Place. usable: raises for an agent that is not up
    or not enabled."""
    usable(place.agent)
    if place.backend.offline:
        raise exceptions.BackendOffline(f'{place.name} is offline: {place.backend.offline}')


def check(place, pool, size, wanted_type):
    """Raise a typed error unless this pool may take a volume of this size and type. pool: volume_facts.Pool."""
    if wanted_type and wanted_type not in place.backend.types:
        served = ', '.join(place.backend.types) or 'none'
        raise exceptions.MigrationRefused(f'{place.name} does not serve volumes of type {wanted_type}; its types: {served}')
    check_room(place, pool, pool.name, size, 'the volume needs {}')


def check_room(place, pool, name, size, why):
    """Raise NoRoom unless a pool may be given `size` bytes more. pool: None is one that is not there any more. why: in words, {} is
    how much."""
    if size > place.room(pool):
        taken = place.promised.get(name, 0)
        kept = f', of which {words(taken)} are kept for requests that came before' if taken else ''
        raise exceptions.NoRoom(f'{place.name}#{name} has {words(pool.free if pool else 0)} free{kept}, {why.format(words(size))}')


def known_type(found, wanted_type):
    """Raise InvalidRequest for a type that no backend serves. found: all Places."""
    served = sorted({name for place in found for name in place.backend.types})
    if wanted_type and wanted_type not in served:
        raise exceptions.InvalidRequest(f'there is no volume type {wanted_type}; there are {", ".join(served) or "none"}')


def choose(found, size, wanted_type, wanted, usable):
    """Choose the pool for a volume. Returns (Place, Pool).

    found: all Places. wanted: a pool, a backend, or '' for any, as users write them. Raises BackendNotFound, InvalidRequest for an
    unknown type; why the only one cannot be: HostDown, HostDisabled, BackendOffline, MigrationRefused, NoRoom; of several NotPossible.
    """
    known_type(found, wanted_type)
    if wanted:
        host, backend, pool = places.pool_of(wanted)
        found = [place for place in found if (place.agent.host, place.backend.name) == (host, backend)]
        if not found:
            raise exceptions.BackendNotFound(f'there is no backend {places.name_of(host, backend)}')
    else:
        pool = ''
    against, good = [], []
    for place in found:
        options = [each for each in place.backend.pools if pool in ('', each.name)]
        try:
            check_backend(place, usable)            # one that does not answer tells of no pools
            if pool and not options:
                raise exceptions.BackendNotFound(f'there is no pool {wanted}')
        except exceptions.Conflict as error:
            against.append(error)
            continue
        for each in options:
            try:
                check(place, each, size, wanted_type)
                good.append((place, each))
            except exceptions.Conflict as error:
                against.append(error)
    if good:
        return max(good, key=lambda option: (option[0].room(option[1]), option[0].name, option[1].name))
    if len(against) == 1:
        raise against[0]
    raise exceptions.NotPossible(f'no pool can take the volume: {"; ".join(dict.fromkeys(map(str, against))) or "there is none"}')
