"""What users ask for: checked, and written down as a workflow in one transaction, or refused with a typed error and nothing changed.

A request is known by its request_id: asked again, it gives the workflow that the first asking made.
"""
import dataclasses
import math
import time
import types
import uuid

from oslo_db import exception as db_exception

from migrator import exceptions
from migrator.conductor import stimulus
from migrator.conductor.agents import Reply
from migrator.conductor.cursor import Cursor, Kind, Policy
from migrator.conductor.db import catalogue, debts, hosts, ledger, views
from migrator.conductor.decide import next_action
from migrator.conductor.engine import Transition
from migrator.conductor.workflows import WORKFLOWS
from migrator.rpc import facts
from migrator.states import AgentKind, InstanceState, Resource

#: What makes a guest run that did not, or may be followed by that.
STARTING = ('instance_start', 'instance_create', 'instance_define')


@dataclasses.dataclass(frozen=True)
class Wanted:
    """All that a request asks for, to tell a repetition from another use of the same request_id.

    host: where it is to be done, '' where that follows from the instance. arguments: the rest, as it is stored: name -> JSON value, or a
    dataclass that one is read as.
    """

    kind: str
    instance: str
    destination: str = ''
    host: str = ''
    arguments: dict = dataclasses.field(default_factory=dict)

    def same(self, known):
        """Give the workflow that the request made before. Raises InvalidRequest if that was another request."""
        differs = list(self._differences(known))
        if differs:
            raise exceptions.InvalidRequest(
                f'request id {known.request_id} was used for another request: {known.kind} of '
                f'{known.instance_name or known.instance_uuid} ({known.id}); what differs is the {" and the ".join(differs)}')
        return known

    def _differences(self, known):
        if known.kind != self.kind:
            yield 'work'
        if self.instance not in (known.instance_uuid, known.instance_name):
            yield 'instance'
        if self.destination != known.destination_host:
            yield 'destination'
        if self.host not in ('', known.source_host):
            yield 'host'
        if known.kind == self.kind:
            yield from (name for name, value in self.arguments.items() if value != _as(value, known.request.get(name)))


def _as(value, stored):
    """Read a stored argument as what it is compared with: a release that knows more of it must take it for the same."""
    return facts.from_wire(type(value), stored) if dataclasses.is_dataclass(value) else stored


class Requests:
    """The door through which every workflow comes in."""

    def __init__(self, database, engine, settings, clock=time.monotonic):
        """settings: the [conductor] group of the configuration. clock: seconds, for how long this conductor has been listening."""
        self.database = database
        self.engine = engine
        self.settings = settings
        self.clock = clock
        self._listening_since = -math.inf

    def listening(self):
        """Note that this conductor hears heartbeats from now on: it may have been the only one, so what was silent before is not down."""
        self._listening_since = self.clock()

    def listened(self):
        """Tell whether heartbeats were listened to for long enough that a silent host is down."""
        return self.clock() - self._listening_since > self.settings.host_down_after

    # --- the requests ---

    def live_migrate(self, context, instance, destination, request_id, options):
        """Ask for a live migration. Returns (row, transition); transition is None for a repeated request or a queued migration."""
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host, destination])
            self.may_move(guest, destination, rows)
            request = {'guest': facts.to_wire(guest_of(guest)), 'options': options}
            return 'live_migration', guest, destination, request, rows
        return self._ask(context, request_id, prepare, Wanted('live_migration', instance, destination, arguments={'options': options}))

    def instance_create(self, context, host, spec, request_id, start):
        """Ask for a new guest on a host. Its name must be nobody else's, on any host, or neither could be asked for by it."""
        kind = 'instance_create' if start else 'instance_define'

        def prepare(tx):
            rows = hosts.get_many(tx, [host])
            self.usable(host, rows)
            if catalogue.several(tx, [spec.uuid]):
                raise exceptions.InstanceExists(f'instance {spec.uuid} exists already')
            self._name_is_free(tx, spec)
            owed = len(debts.of_instance(tx, spec.uuid))
            new = types.SimpleNamespace(uuid=spec.uuid, name=spec.name, host=host, locked_by=None, owed=owed)
            return kind, new, '', {'spec': facts.to_wire(spec)}, rows
        return self._ask(context, request_id, prepare, Wanted(kind, spec.uuid, host=host, arguments={'spec': spec}),
                         (catalogue.name_resource(spec.name),))

    def instance_start(self, context, instance, request_id):
        """Ask to start a guest. No guest is started while a lock or a debt names it."""
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host])
            self.usable(guest.host, rows, disabled_too=True)
            self.not_elsewhere(guest)
            if guest.state == InstanceState.UNKNOWN:
                raise exceptions.NotPossible(f'{guest.host} does not know instance {guest.name or guest.uuid} at present')
            return 'instance_start', guest, '', {}, rows
        return self._ask(context, request_id, prepare, Wanted('instance_start', instance))

    def instance_stop(self, context, instance, request_id, timeout):
        """Ask to stop a guest. timeout: seconds that it is given to shut down by itself."""
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host])
            self.usable(guest.host, rows, disabled_too=True)
            return 'instance_stop', guest, '', {'timeout': timeout}, rows
        return self._ask(context, request_id, prepare, Wanted('instance_stop', instance, arguments={'timeout': timeout}))

    def instance_delete(self, context, instance, request_id):
        """Ask to delete a stopped guest with the disks that were made for it.

        One that its host does not know is refused, unless an earlier removal accounts for that: then what that left is removed.
        """
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host])
            self.usable(guest.host, rows, disabled_too=True)
            self.not_elsewhere(guest)
            if guest.state == InstanceState.UNKNOWN and ledger.latest_kind(tx, guest.uuid) != 'instance_delete':
                name = guest.name or guest.uuid
                raise exceptions.NotPossible(f'{guest.host} does not know instance {name} at present; it may run elsewhere')
            if guest.state in (InstanceState.RUNNING, InstanceState.PAUSED):
                raise exceptions.InstanceRunning(f'instance {guest.name or guest.uuid} is {guest.state}; stop it first')
            return 'instance_delete', guest, '', {}, rows
        return self._ask(context, request_id, prepare, Wanted('instance_delete', instance))

    # --- the rules ---

    def _free(self, tx, instance):
        """Read a guest that nobody works on. What somebody works on is about to change, so this is said before anything else."""
        guest = catalogue.get(tx, instance)
        if guest.locked_by:
            self._refuse_locked(tx, guest)
        return guest

    @staticmethod
    def _name_is_free(tx, spec):
        """Raise InstanceExists if a guest has the name of a new one, or ResourceLocked if another one of the name is being made."""
        for row in catalogue.named(tx, spec.name):
            raise exceptions.InstanceExists(f'there is an instance of the name {spec.name} already: {row.uuid} on {row.host}, {row.state}')
        holder = ledger.lock_holder(tx, catalogue.name_resource(spec.name))
        if holder is not None:
            raise exceptions.ResourceLocked(f'another instance of the name {spec.name} is being made ({holder.kind} {holder.id})')

    def may_move(self, guest, destination, rows):
        """Raise a typed error unless this guest may be sent there, as far as the catalogue can tell."""
        name = guest.name or guest.uuid
        if guest.host == destination:
            raise exceptions.SameHost(f'instance {name} is on {destination} already')
        self.not_elsewhere(guest)
        self.usable(destination, rows)
        self.usable(guest.host, rows, disabled_too=True)
        if guest.state not in (InstanceState.RUNNING, InstanceState.PAUSED):
            raise exceptions.InstanceNotRunning(f'instance {name} is {guest.state}, a live migration needs it running')

    @staticmethod
    def not_elsewhere(guest):
        """Raise SeenElsewhere while another host says that it has the guest: a second copy, or the loss of the good one, would follow."""
        if guest.sighted_host:
            raise exceptions.SeenElsewhere(
                f'instance {guest.name or guest.uuid} is {guest.sighted_state} on {guest.sighted_host}, the catalogue has it '
                f'{guest.state} on {guest.host}; it is left alone until one of the two hosts no longer has it')

    def usable(self, host, rows, disabled_too=False):
        """Raise a typed error unless the host is known, up and enabled. disabled_too: a disabled host will do (its guests may leave).

        Silence is evidence only while somebody listened: a conductor that has just started takes no host for down. If it is down after
        all, the workflow finds out and changes nothing.
        """
        row = rows.get(host)
        if row is None:
            raise exceptions.HostNotFound(f'there is no host {host}')
        if self.listened() and not views.is_up(row, self.settings.host_down_after):
            raise exceptions.HostDown(f'host {host} is down: last heard of at {views.moment(row.last_seen)}')
        if not row.enabled and not disabled_too:
            raise exceptions.HostDisabled(f'host {host} is disabled: {row.disabled_reason}')

    # --- writing it down ---

    def _ask(self, context, request_id, prepare, wanted, resources=()):
        """resources: what to lock beside the guest."""
        request_id = request_id or context.request_id
        try:
            return self.database.run(lambda tx: self._write(tx, context, request_id, prepare, resources))
        except db_exception.DBDuplicateEntry as error:
            return self._lost_race(request_id, prepare, wanted, error)
        except exceptions.MigratorError:
            # What stands in its way may be the same request, taken before, or by another conductor a moment ago.
            known = self.database.run(lambda tx: ledger.by_request(tx, request_id))
            if known is None:
                raise
            return wanted.same(known), None

    def _write(self, tx, context, request_id, prepare, resources):
        kind, guest, destination, request, rows = prepare(tx)
        now = rows[guest.host].now
        if guest.owed:
            self._refuse_owed(tx, kind, guest, destination)
        if kind in STARTING and rows[guest.host].owing:
            raise exceptions.DebtOutstanding(f'{guest.host} does the cleanups first that are owed there; try again in a moment')
        new = types.SimpleNamespace(
            id=str(uuid.uuid4()), kind=kind, resource=Resource.INSTANCE.value, instance_uuid=guest.uuid, instance_name=guest.name,
            volume_id='', volume_name='', source_host=guest.host, source_agent=AgentKind.COMPUTE.value,
            destination_host=destination, destination_agent=AgentKind.COMPUTE.value, parent_id=None,
            request_id=request_id, user=context.user, request=request, policy=vars(self._policy(kind, guest)).copy(),
            plan={}, facts={}, progress={}, epoch=1, created_at=now, updated_at=now, looked_at=0, finished_at=None)
        for resource in (catalogue.resource(guest.uuid), *resources):
            ledger.lock(tx, resource, new.id)
        return new, self._begin(tx, new, rows, context)

    def _begin(self, tx, new, rows, context):
        """Let it begin in the same transaction if there is room; else it is queued."""
        record = ledger.Record(new, new.created_at, Cursor(), Policy(**new.policy), self._agent(rows, new.source_host, new.created_at),
                               self._agent(rows, new.destination_host, new.created_at))
        action = next_action(WORKFLOWS[new.kind], record.cursor, stimulus.Due(), record.now, record.policy,
                             {'options': new.request.get('options', {})})
        needs_place = bool(WORKFLOWS[new.kind].checks)
        new.admitted = needs_place and hosts.take_places(tx, rows.values(), self.settings.max_migrations_per_host)
        begins = new.admitted or not needs_place
        cursor = action.cursor if begins else record.cursor
        waits = hosts.obstacle(rows.values(), self.settings.max_migrations_per_host)
        new.reason = action.reason if begins else waits or 'waits for a free place at its hosts'
        wake_in = record.policy.claim if begins else record.policy.queue
        vars(new).update(ledger.cursor_values(cursor), next_wakeup=new.created_at + int(wake_in * 1000))
        ledger.insert(tx, vars(new))
        ledger.note(tx, new.id, record.now, cursor, 'requested', new.reason, context.user, new.request_id)
        if not begins:
            return None
        kind = Kind.CALL if needs_place else Kind.START
        after = dataclasses.replace(record, cursor=cursor)
        return Transition(record, after, action_of(action, kind, cursor), Reply(stimulus.Due()), self.engine.clock())

    @staticmethod
    def _agent(rows, host, now):
        row = rows.get(host)
        return ledger.address(now, row.process_id, row.monotonic, row.last_seen, row.places) if row else ledger.Agent('', 0.0)

    def _policy(self, kind, guest):
        s = self.settings
        policy = Policy(claim=s.claim_seconds, poll=s.poll_interval, retry=s.retry_interval, observe=s.observe_interval,
                        lost_after=s.host_lost_after, step_attempts=s.step_attempts,
                        per_gib=s.completion_timeout if kind == 'live_migration' else 0.0)
        return policy.limited(guest.memory_mib, [d['size'] for d in guest.disks if d['kind'] == 'file']) if policy.per_gib else policy

    @staticmethod
    def _refuse_locked(tx, guest):
        holder = ledger.lock_holder(tx, catalogue.resource(guest.uuid))
        name = guest.name or guest.uuid
        if holder is not None and holder.kind == 'live_migration':
            raise exceptions.AlreadyMigrating(f'instance {name} is being migrated already (migration {holder.id})')
        raise exceptions.ResourceLocked(f'instance {name} is being worked on ({holder.kind} {holder.id})' if holder else
                                        f'instance {name} is being worked on')

    @staticmethod
    def _refuse_owed(tx, kind, guest, destination):
        """Refuse what a debt forbids.

        No guest is started while a debt names it, and none is sent to where one is still to be paid. Nothing at all is done to one whose
        cleanup was refused: it is not where it was thought to be, or it is there twice.
        """
        owed = debts.of_instance(tx, guest.uuid)
        if kind in STARTING or any(d.host == destination or d.refused for d in owed):
            words = '; '.join(f'{d.action} at {d.host}: {d.reason}' for d in owed)
            raise exceptions.DebtOutstanding(f'a cleanup that names instance {guest.name or guest.uuid} is not done yet: {words}')

    def _lost_race(self, request_id, prepare, wanted, error):
        """Another conductor was faster: with the same request, or with another one for the same guest."""
        def look(tx):
            known = ledger.by_request(tx, request_id)
            if known is not None:
                return wanted.same(known), None
            _kind, guest, _destination, _request, _rows = prepare(tx)
            if ledger.lock_holder(tx, catalogue.resource(guest.uuid)) is None:
                raise exceptions.ResourceLocked('another request for the same instance came at the same time; try again') from error
            self._refuse_locked(tx, guest)
        return self.database.run(look)


def action_of(action, kind, cursor):
    """Give the decided action as it was stored."""
    return type(action)(kind, cursor, action.reason, action.wake_in)


def guest_of(row):
    """Turn a catalogue row into what agents are told of the guest."""
    return facts.from_wire(facts.Guest, {
        'uuid': row.uuid, 'name': row.name, 'state': row.state if row.state in ('running', 'paused') else 'off',
        'memory_mib': row.memory_mib, 'vcpus': row.vcpus, 'disks': row.disks, 'boot_files': row.boot_files,
        'managed': bool(row.managed)})
