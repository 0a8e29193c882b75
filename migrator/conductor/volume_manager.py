"""The conductor's faces on the bus that are about arrays and volumes: what users ask, and what volume agents tell."""
from migrator import exceptions
from migrator.conductor import later, placement, places, ways
from migrator.conductor.db import backends, views, volume_views, volumes
from migrator.conductor.manager import checked_filters, flag, number, one_of, page, request_key, text, uuid
from migrator.rpc import contract, facts, server, volume_facts
from migrator.states import VolumeState


class VolumeEndpoint:
    """What an API tier or the command line may call about volumes; the contract is `migrator.rpc.contract.CONDUCTOR`."""

    target = server.target(contract.CONDUCTOR_VERSION)

    def __init__(self, database, settings, requests=None, engine=None, pool=None):
        """settings: the [conductor] group of the configuration. requests: VolumeRequests. engine, pool: who go on with what was asked."""
        self.database = database
        self.settings = settings
        self.requests = requests
        self.engine = engine
        self.pool = pool

    # --- backends ---

    @server.exposed(contract.CONDUCTOR)
    def backends(self, context):
        """All backends, by name."""
        def read(tx):
            counted = backends.counts(tx)
            return [volume_views.backend_view(place, counted, self.settings.host_down_after) for place in backends.listing(tx)]
        return self.database.run(read)

    @server.exposed(contract.CONDUCTOR)
    def backend_show(self, context, backend):
        """One backend with its pools."""
        host, name = places.backend_of(backend)
        return self.database.run(lambda tx: volume_views.backend_view(
            backends.get(tx, host, name), backends.counts(tx), self.settings.host_down_after))

    # --- volumes ---

    @server.exposed(contract.CONDUCTOR)
    def volumes(self, context, filters, limit, marker):
        """Volumes, by name."""
        filters = checked_filters(filters, ('backend', 'type', 'status'))
        one_of(filters, 'status', VolumeState)
        if 'backend' in filters:
            filters['host'], filters['backend'] = places.backend_of(filters['backend'])
        limit, marker = page(limit, marker)

        def read(tx):
            rows = volumes.listing(tx, filters, limit, marker)
            if not rows:
                self._exists(tx, filters)
            attached = volumes.attachments(tx, [row.id for row in rows])
            return [volume_views.volume_view(row, attached) for row in rows]
        return self.database.run(read)

    @staticmethod
    def _exists(tx, filters):
        """Raise BackendNotFound, or InvalidRequest for a type, if there is no such thing: an empty list would read like an answer."""
        if 'backend' in filters:
            backends.get(tx, filters['host'], filters['backend'])
        placement.known_type(backends.listing(tx), filters.get('type'))

    @server.exposed(contract.CONDUCTOR)
    def volume_show(self, context, volume):
        """One volume with its attachments."""
        volume = text(volume, 'volume')

        def read(tx):
            row = volumes.get(tx, volume)
            last = volumes.last_migration(tx, row.id)
            return {**volume_views.volume_view(row, volumes.attachments(tx, [row.id])), 'migration': volume_views.last_migration(last)}
        return self.database.run(read)

    @server.exposed(contract.CONDUCTOR)
    def volume_create(self, context, spec, request_id):
        """Make a volume."""
        return self._accepted(self.requests.create(context, checked_spec(spec), request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def volume_delete(self, context, volume, request_id):
        """Delete a volume."""
        return self._accepted(self.requests.delete(context, text(volume, 'volume'), request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def volume_extend(self, context, volume, size, request_id):
        """Make a volume larger."""
        return self._accepted(self.requests.extend(context, text(volume, 'volume'), whole_size(size), request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def volume_attach(self, context, volume, instance, options, request_id):
        """Give a guest a volume."""
        asked = {'target': '', 'read_only': False, **known_options(options, ('target', 'read_only'))}
        if asked['target'] != '' and not (isinstance(asked['target'], str) and facts.TARGET.match(asked['target'])):
            raise exceptions.InvalidRequest(f'target must be the name of a disk such as vdb, not {asked["target"]!r:.40}')
        flag(asked['read_only'], 'read_only')
        return self._accepted(self.requests.attach(context, text(volume, 'volume'), text(instance, 'instance'), asked,
                                                   request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def volume_detach(self, context, volume, instance, options, request_id):
        """Take a volume from a guest."""
        asked = {'assert_dead': False, **known_options(options, ('assert_dead',))}
        flag(asked['assert_dead'], 'assert_dead')
        return self._accepted(self.requests.detach(context, text(volume, 'volume'), text(instance, 'instance'), asked,
                                                   request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def volume_migrate(self, context, volume, destination, request_id, options):
        """Move a volume to another pool; returns at once with the migration, or with a verdict for a dry run."""
        volume, options = text(volume, 'volume'), migrate_options(options)
        places.pool_of(destination)
        if options.pop('dry_run'):
            return self.database.run(lambda tx: self._dry_run(tx, volume, destination, options))
        return self._accepted(self.requests.migrate(context, volume, destination, options, request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def set_bandwidth(self, context, migration, bytes_per_second):
        """Change the limit of a copy, of one that runs at once."""
        migration = uuid(migration, 'migration')
        number(bytes_per_second, 'bytes_per_second', 0, volume_facts.MAX_BYTES)
        self.requests.set_bandwidth(context, migration, bytes_per_second)
        return self.database.run(lambda tx: views.show_migration(tx, migration))

    def _dry_run(self, tx, volume, destination, options):
        """Tell what would be tried, as far as the catalogue can tell."""
        row, place, pool = self.requests.may_move(tx, volume, destination, options)
        here = backends.get(tx, row.host, row.backend)
        return {'dry_run': True, 'possible': True, 'reasons': [], 'volume_id': row.id, 'volume_name': row.name,
                'from': places.name_of(row.host, row.backend, row.pool),
                'to': places.name_of(place.agent.host, place.backend.name, pool.name),
                'size': row.size, 'type': options['new_type'] or row.type, 'ways': ways.planned(here.name, place.name, options)}

    def _accepted(self, asked):
        """Answer at once and go on in another thread."""
        row, transition = asked
        if transition is not None:
            later.go_on(self.engine, self.pool, row.id, transition)
        return views.migration_view(row)


class VolumeAgentEndpoint:
    """What volume agents may call beside what all agents may; the contract is `migrator.rpc.contract.AGENT`."""

    target = server.target(contract.AGENT_VERSION, contract.AGENT_NAMESPACE)

    def __init__(self, inventory):
        """inventory: conductor.volume_inventory.VolumeInventory."""
        self.inventory = inventory

    @server.exposed(contract.AGENT)
    def volume_heartbeat(self, context, heartbeat):
        """Take a heartbeat of a volume agent."""
        return self.inventory.heartbeat(facts.from_wire(volume_facts.VolumeHeartbeat, heartbeat, 'heartbeat'))


# --- arguments, checked ---

def whole_size(value, name='size'):
    """Check a size: bytes, whole sectors."""
    number(value, name, volume_facts.SECTOR, volume_facts.MAX_BYTES)
    if value % volume_facts.SECTOR:
        raise exceptions.InvalidRequest(f'{name} must be whole sectors of {volume_facts.SECTOR} bytes, not {value}')
    return value


def known_options(options, allowed):
    """Check that there are no others; unknown ones are refused, for they would silently do nothing."""
    options = {} if options is None else options
    if not isinstance(options, dict) or not set(options) <= set(allowed):
        raise exceptions.InvalidRequest(f'there may be {", ".join(allowed)}, and nothing else')
    return options


def volume_type(value):
    """Check the name of a type; '' is none."""
    if value != '' and not (isinstance(value, str) and volume_facts.BACKEND.match(value)):
        raise exceptions.InvalidRequest(f'{value!r:.80} is not the name of a volume type')
    return value


def checked_spec(spec):
    """Check what a volume is to be."""
    if not isinstance(spec, dict):
        raise exceptions.InvalidRequest('spec must be an object')
    spec = known_options(spec, ('name', 'size', 'pool', 'type', 'multiattach'))
    name = spec.get('name')
    if not isinstance(name, str) or not facts.NAME.match(name) or facts.UUID.match(name):
        raise exceptions.InvalidRequest(f'{name!r:.80} cannot be the name of a volume')
    pool = spec.get('pool', '')
    if pool != '':
        places.pool_of(pool)
    return {'name': name, 'size': whole_size(spec.get('size')), 'pool': pool, 'type': volume_type(spec.get('type', '')),
            'multiattach': flag(spec.get('multiattach', False), 'multiattach')}


def migrate_options(options):
    """Check the options of a volume's migration, and give all of them."""
    options = known_options(options, ('force_host_copy', 'lock_volume', 'new_type', 'verification', 'bandwidth', 'dry_run'))
    if options.get('verification', 'sampled') not in ('sampled', 'full'):
        raise exceptions.InvalidRequest('verification must be sampled or full')
    return {**{name: flag(options.get(name, False), name) for name in ('force_host_copy', 'lock_volume', 'dry_run')},
            'new_type': volume_type(options.get('new_type', '')), 'verification': options.get('verification', 'sampled'),
            'bandwidth': number(options.get('bandwidth', 0), 'bandwidth', 0, volume_facts.MAX_BYTES)}

