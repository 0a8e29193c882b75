"""What users ask for volumes: checked, and written down as a workflow in one transaction, or refused by name with nothing changed."""
import dataclasses
import uuid

from migrator import exceptions
from migrator.conductor import placement, places
from migrator.conductor.db import backends, catalogue, debts, hosts, ledger, reservations, volumes
from migrator.conductor.engine import until_stored
from migrator.conductor.intake import Order, Wanted, refuse_locked
from migrator.conductor.versions import lowest_of
from migrator.conductor.volume_agents import new_plan
from migrator.conductor.volume_work import lun_of
from migrator.conductor.workflows.volume_migration import VOLUME_MIGRATION
from migrator.rpc import contract, facts, volume_facts
from migrator.states import AgentKind, AttachmentState, InstanceState, VolumeMigration, VolumeState

#: Cleanups that say that a volume may still be in somebody's hands, or half made: nothing is done to it until they are paid.
BLOCKING = ('detach_volume', 'unexport_attachment', 'delete_volume')


class VolumeRequests:
    """Takes requests for volumes."""

    def __init__(self, intake, database):
        """intake: conductor.intake.Intake, which says who is heard of and writes requests down."""
        self.intake = intake
        self.database = database

    # --- the requests ---

    def create(self, context, spec, request_id):
        """Ask for a new volume. spec: name, size (bytes), type, pool ('' for any), multiattach. Returns (row, transition)."""
        volume_id = str(uuid.uuid4())
        lun_name = f'volume-{volume_id}'

        def prepare(tx):
            self._name_is_free(tx, spec['name'])
            found = backends.held(tx, *filter(None, [spec['pool']]))
            place, pool = placement.choose(found, spec['size'], spec['type'], spec['pool'], self._usable)
            lun = volume_facts.LunRef(place.agent.host, place.backend.name, pool.name, lun_name)
            request = {'spec': spec, 'lun': facts.to_wire(lun), 'size': spec['size']}
            agent = hosts.get_many(tx, [lun.host], AgentKind.VOLUME)[lun.host]

            def learn(tx, work):
                volumes.insert(tx, volume_id, name=spec['name'], size=spec['size'], type=spec['type'], multiattach=spec['multiattach'],
                               host=lun.host, backend=lun.backend, pool=lun.pool, lun=lun.lun, status=VolumeState.CREATING.value)
                reservations.insert(tx, work, lun.host, lun.backend, lun.pool, spec['size'])
            return Order('volume_create', f'volume {spec["name"]}', request, agent,
                         (*volumes.locks(volume_id), volumes.name_resource(spec['name'])), volume=(volume_id, spec['name']), learn=learn)
        return self.intake.ask(context, request_id, prepare, Wanted('volume_create', spec['name'], arguments={'spec': spec}))

    def delete(self, context, volume, request_id):
        """Ask to delete a volume that nobody has."""
        def prepare(tx):
            row = self._free(tx, volume)
            if row.status == VolumeState.CREATING:
                raise exceptions.VolumeNotUsable(f'{called(row)} is {row.state}')
            return self._order(tx, 'volume_delete', row, {})
        return self.intake.ask(context, request_id, prepare, Wanted('volume_delete', volume))

    def extend(self, context, volume, size, request_id):
        """Ask for more room. size: bytes."""
        def prepare(tx):
            row = self._free(tx, volume)
            self._available(row)
            if size <= row.size:
                raise exceptions.InvalidRequest(f'{called(row)} has {placement.words(row.size)} already; it can only be made larger')
            place = backends.one(backends.held(tx, places.name_of(row.host, row.backend)), row.host, row.backend)
            placement.check_backend(place, self._leaving)
            more = size - row.size
            placement.check_room(place, place.pool(row.pool), row.pool, more, '{} are needed')
            return self._order(tx, 'volume_extend', row, {'size': size}, learn=lambda tx, work: (
                reservations.insert(tx, work, row.host, row.backend, row.pool, more)))
        return self.intake.ask(context, request_id, prepare, Wanted('volume_extend', volume, arguments={'size': size}))

    def attach(self, context, volume, instance, options, request_id):
        """Ask to give a guest a volume. options: target (the disk's name, '' for any), read_only."""
        attachment_id, asked = str(uuid.uuid4()), {'instance': instance, **options}

        def prepare(tx):
            row, guest = volumes.get(tx, volume), self._guest(tx, instance)
            refuse_locked(tx, volumes.attaching(row.id), called(row))
            if row.locked_by and row.lock_mode != volumes.ATTACHABLE:
                refuse_locked(tx, volumes.resource(row.id), called(row))
            self._owes_nothing(tx, row)
            self._attachable(tx, row, guest)
            attachment = {'id': attachment_id, 'volume_id': row.id, 'instance_uuid': guest.uuid, **options}
            return self._bring(tx, 'volume_attach', row, guest, {'attachment': attachment, 'asked': asked}, lambda tx, _: (
                volumes.insert_attachment(tx, attachment_id, volume_id=row.id, instance_uuid=guest.uuid, host=guest.host,
                                          status=AttachmentState.ATTACHING.value, **options)))
        return self.intake.ask(context, request_id, prepare, Wanted('volume_attach', volume, arguments={'asked': asked}))

    def detach(self, context, volume, instance, options, request_id):
        """Ask to take a volume from a guest. options: assert_dead: the caller attests that the guest's host is off, so that nobody is asked
        there and whoever is connected is cut off; counts only while the host is silent."""
        cut_off = options['assert_dead']
        kind, asked = 'volume_cut_off' if cut_off else 'volume_detach', {'instance': instance, **options}

        def prepare(tx):
            row, guest = volumes.get(tx, volume), self._guest(tx, instance)
            refuse_locked(tx, volumes.attaching(row.id), called(row))
            if row.locked_by and row.lock_mode != volumes.ATTACHABLE:
                refuse_locked(tx, volumes.resource(row.id), called(row))
            known = next((a for a in volumes.attachments(tx, [row.id]) if a.instance_uuid == guest.uuid), None)
            if known is None:
                raise exceptions.NotPossible(f'{called(row)} is not attached to instance {guest.name or guest.uuid}')
            attachment = {'id': known.id, 'volume_id': row.id, 'instance_uuid': guest.uuid, 'target': known.target,
                          'read_only': bool(known.read_only)}
            request = {'attachment': attachment, 'connection': known.connection, 'asked': asked, 'force': cut_off}
            return self._bring(tx, kind, row, guest, request, dead=cut_off)
        return self.intake.ask(context, request_id, prepare, Wanted(kind, volume, arguments={'asked': asked}))

    def migrate(self, context, volume, destination, options, request_id):
        """Ask for a migration. destination: a pool, or a backend. options: force_host_copy, lock_volume, new_type,
        verification, bandwidth."""
        def prepare(tx):
            row, place, pool = self.may_move(tx, volume, destination, options)
            where = place.agent.host, place.backend.name, pool.name

            def learn(tx, work):
                volumes.update(tx, row.id, migration_status=VolumeMigration.MIGRATING.value, error='')
                reservations.insert(tx, work, *where, row.size)
            order = self._order(tx, VOLUME_MIGRATION.kind, row, {'options': options, 'asked': destination}, place.agent.host, learn)
            return dataclasses.replace(order, plan=lambda migration: facts.to_wire(new_plan(migration, row, *where, options)))
        return self.intake.ask(context, request_id, prepare, Wanted(VOLUME_MIGRATION.kind, volume, arguments={
            'asked': destination, 'options': options}))

    def set_bandwidth(self, context, migration_id, bytes_per_second):
        """Limit a copy: those that begin from now on by the plan, and one that runs by its agent. 0 is no limit. Repeatable.

        Raises MigrationNotFound, NotPossible for other work, TooLate, and what the agent's silence leads to; the plan is changed then.
        """
        host = self._plan_bandwidth(context, migration_id, bytes_per_second)
        self.intake.engine.agents.api(AgentKind.VOLUME).set_copy_rate(context, host, migration_id, bytes_per_second)

    @until_stored
    def _plan_bandwidth(self, context, migration_id, bytes_per_second):
        def write(tx):
            record = ledger.load(tx, migration_id)
            if record.row.kind != VOLUME_MIGRATION.kind:
                raise exceptions.NotPossible(f'{migration_id} is a {record.row.kind}, which copies no volume')
            if record.cursor.status.terminal:
                raise exceptions.TooLate(f'the migration has ended already: {record.cursor.status.value} (migration {migration_id})')
            ledger.change_plan(tx, record, {**record.row.plan, 'bandwidth': bytes_per_second})
            limit = f'{placement.words(bytes_per_second)} a second' if bytes_per_second else 'none'
            ledger.note(tx, migration_id, record.now, record.cursor, 'set_bandwidth', f'limit of the copy: {limit}', context.user,
                        context.request_id)
            return record.row.destination_host
        return self.database.run(write)

    # --- the rules ---

    def may_move(self, tx, volume, destination, options):
        """Say what is to be moved where: (volume's row, Place, Pool). Raises a typed error for what stands against it, as far as the
        catalogue can tell; snapshots, and what else only an array knows, the checks find."""
        row = self._free(tx, volume)
        self._available(row)
        if row.multiattach:
            raise exceptions.MigrationRefused(f'{called(row)} may be attached to several instances at once, and is therefore not migrated')
        places.pool_of(destination)
        found = backends.held(tx, destination, row.host)
        here = next((p for p in found if (p.agent.host, p.backend.name) == (row.host, row.backend)), None)
        if here is None:
            raise exceptions.BackendNotFound(f'the backend of {called(row)}, {row.host}@{row.backend}, is not known any more')
        if destination in (places.name_of(row.host, row.backend, row.pool), places.name_of(row.host, row.backend)):
            raise exceptions.SameBackend(f'{called(row)} is at {places.name_of(row.host, row.backend, row.pool)} already; '
                                         'for another pool of that backend, name it')
        placement.check_backend(here, self._leaving)
        place, pool = placement.choose(found, row.size, options['new_type'] or row.type, destination, self._usable)
        return row, place, pool

    def _usable(self, agent):
        self.intake.usable(agent.host, {agent.host: agent})

    def _leaving(self, agent):
        self.intake.usable(agent.host, {agent.host: agent}, disabled_too=True)

    @staticmethod
    def _name_is_free(tx, name):
        """Raise VolumeExists if a volume has the name, or ResourceLocked if another one of the name is being made."""
        for row in volumes.named(tx, name):
            raise exceptions.VolumeExists(f'there is a volume of the name {name} already: {row.id}, {row.status}')
        refuse_locked(tx, volumes.name_resource(name), f'a volume of the name {name}')

    def _free(self, tx, volume):
        """Read a volume that nobody works on, that nobody has, and that no cleanup names."""
        row = volumes.get(tx, volume)
        for resource in reversed(volumes.locks(row.id)):
            refuse_locked(tx, resource, called(row))
        self._owes_nothing(tx, row)
        held = volumes.attachments(tx, [row.id])
        if held:
            names = ', '.join(a.instance_name or a.instance_uuid for a in held)
            raise exceptions.VolumeInUse(f'{called(row)} is attached to {names}; detach it first')
        return row

    @staticmethod
    def _owes_nothing(tx, row):
        owed = [d for d in debts.of_volume(tx, row.id) if d.action in BLOCKING] if row.owed else ()
        if owed:
            words = '; '.join(f'{d.action} at {d.host}: {d.reason}' for d in owed)
            raise exceptions.DebtOutstanding(f'a cleanup that names {called(row)} is not done yet: {words}')

    @staticmethod
    def _available(row):
        if row.status != VolumeState.AVAILABLE:
            raise exceptions.VolumeNotUsable(f'{called(row)} is {row.state}' + (f': {row.error}' if row.error else ''))

    def _attachable(self, tx, row, guest):
        self._available(row)
        held = volumes.attachments(tx, [row.id])
        for known in held:
            if known.instance_uuid == guest.uuid:
                raise exceptions.VolumeInUse(f'instance {guest.name or guest.uuid} has {called(row)} already')
        if held and not row.multiattach:
            raise exceptions.VolumeInUse(f'{called(row)} is attached to {held[0].instance_name or held[0].instance_uuid} already')
        if guest.state not in (InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.STOPPED):
            raise exceptions.NotPossible(f'instance {guest.name or guest.uuid} is {guest.state}')

    def _guest(self, tx, instance):
        guest = catalogue.get(tx, instance)
        refuse_locked(tx, catalogue.resource(guest.uuid), f'instance {guest.name or guest.uuid}')
        self.intake.not_elsewhere(guest)
        return guest

    # --- writing it down ---

    def _order(self, tx, kind, row, request, there='', learn=None):
        """there: the host of the destination's agent, '' if there is none."""
        rows = self._agents(tx, row, there)
        return Order(kind, called(row), {'lun': facts.to_wire(lun_of(row)), **request}, rows[row.host], volumes.locks(row.id),
                     rows.get(there), volume=(row.id, row.name), learn=learn)

    def _bring(self, tx, kind, row, guest, request, learn=None, dead=False):
        """An order that concerns a guest, too. Agents are locked in the order of their kinds. dead: the guest's host must be silent."""
        there = None
        if dead:
            self.intake.off(tx, guest.host)
        else:
            found = hosts.get_many(tx, [guest.host])
            self.intake.usable(guest.host, found, disabled_too=True)
            there = found[guest.host]
            knows_volumes(there)
        rows = self._agents(tx, row)
        return Order(kind, called(row), {'lun': facts.to_wire(lun_of(row)), **request}, rows[row.host],
                     (volumes.attaching(row.id), catalogue.resource(guest.uuid)), there,
                     instance=(guest.uuid, guest.name), volume=(row.id, row.name), learn=learn)

    def _agents(self, tx, row, there=''):
        """Read the agent of a volume's backend, which must answer, and that of the destination."""
        rows = hosts.get_many(tx, {row.host, there} - {''}, AgentKind.VOLUME)
        self.intake.usable(row.host, rows, disabled_too=True)
        placement.check_backend(backends.get(tx, row.host, row.backend), self._leaving)
        return rows


def called(row):
    """Name a volume in a sentence."""
    return f'volume {row.name or row.id}'


def knows_volumes(agent):
    """Raise NotPossible for a compute agent that is too old for volumes. agent: its service row."""
    if contract.order(lowest_of([agent.rpc_version])) < contract.order(contract.COMPUTE['attach_volume'].since):
        raise exceptions.NotPossible(f'the agent of {agent.host} is too old for volumes (version {agent.rpc_version or "unknown"}); '
                                     'upgrade it')
