"""How every request becomes a workflow: written down in one transaction with its locks, or refused with nothing changed.

A request is known by its request_id: asked again, it gives the workflow that the first asking made. What a request is about, and what
speaks against it, is for `requests` and `volume_requests` to say: each gives an Order, or raises.
"""
import dataclasses
import math
import time
import types
import typing
import uuid

from oslo_db import exception as db_exception

from migrator import exceptions
from migrator.conductor import rivals, stimulus
from migrator.conductor.agents import Reply
from migrator.conductor.cursor import Cursor, Kind, Policy
from migrator.conductor.db import hosts, ledger, views
from migrator.conductor.decide import next_action
from migrator.conductor.engine import Transition
from migrator.conductor.workflows import WORKFLOWS
from migrator.rpc import facts
from migrator.states import AgentKind, Resource

#: Kinds of work that are a migration: who asks for what one holds is told that it is one.
MIGRATIONS = ('live_migration', 'volume_migration')


@dataclasses.dataclass(frozen=True)
class Wanted:
    """All that a request asks for, to tell a repetition from another use of the same request_id.

    subject: the guest or volume as the caller named it. host: where it is to be done, '' where that follows from the subject.
    arguments: the rest, as it is stored: name -> JSON value, or a dataclass that one is read as.
    """

    kind: str
    subject: str
    destination: str = ''
    host: str = ''
    arguments: dict = dataclasses.field(default_factory=dict)

    def same(self, known):
        """Give the workflow that the request made before. Raises InvalidRequest if that was another request."""
        differs = list(self._differences(known))
        if differs:
            raise exceptions.InvalidRequest(
                f'request id {known.request_id} was used for another request: {known.kind} of {subject_of(known)} ({known.id}); '
                f'what differs is the {" and the ".join(differs)}')
        return known

    def _differences(self, known):
        if known.kind != self.kind:
            yield 'work'
        if self.subject not in (known.instance_uuid, known.instance_name, known.volume_id, known.volume_name):
            yield 'volume' if known.volume_id else 'instance'
        if self.destination and self.destination != known.destination_host:
            yield 'destination'
        if self.host not in ('', known.source_host):
            yield 'host'
        if known.kind == self.kind:
            yield from (name for name, value in self.arguments.items() if value != _as(value, known.request.get(name)))


def _as(value, stored):
    """Read a stored argument as what it is compared with: a release that knows more of it must take it for the same."""
    return facts.from_wire(type(value), stored) if dataclasses.is_dataclass(value) else stored


@dataclasses.dataclass(frozen=True)
class Order:
    """A request that may be carried out.

    source, destination: service rows of the agents, read in this transaction; destination None where there is only one. instance, volume:
    (identity, name) of what it concerns. called: that in words. locks: resources. limits: (MiB of memory, sizes of disks that are
    copied), from which the time limit is reckoned. plan: gives what the steps are given, by the workflow's id, where that is known from the
    start. learn: writes into the catalogue what is true from the request on; called
    with the transaction and the workflow's id.
    """

    kind: str
    called: str
    request: dict
    source: object
    locks: tuple[str, ...]
    destination: object = None
    instance: tuple[str, str] = ('', '')
    volume: tuple[str, str] = ('', '')
    limits: tuple = ()
    plan: typing.Callable | None = None
    learn: typing.Callable | None = None

    @property
    def agents(self):
        """The service rows, each once."""
        found = {(row.kind, row.host): row for row in (self.source, self.destination) if row is not None}
        return tuple(found.values())


class Intake:
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

    def usable(self, host, rows, disabled_too=False):
        """Raise a typed error unless the host is known, up, one, and enabled. disabled_too: a disabled host will do (its guests may leave).

        Silence is evidence only while somebody listened: a conductor that has just started takes no host for down. If it is down after
        all, the workflow finds out and changes nothing.
        """
        row = rows.get(host)
        if row is None:
            raise exceptions.HostNotFound(f'there is no host {host}')
        if self.listened() and not views.is_up(row, self.settings.host_down_after):
            agent = 'host' if row.kind == AgentKind.COMPUTE.value else f'the {row.kind} agent of'
            raise exceptions.HostDown(f'{agent} {host} is down: last heard of at {views.moment(row.last_seen)}')
        conflict = rivals.conflict(row)
        if conflict:
            raise exceptions.HostDoubled(conflict)
        if not row.enabled and not disabled_too:
            raise exceptions.HostDisabled(f'host {host} is disabled: {row.disabled_reason}')

    def off(self, tx, host, kind=AgentKind.COMPUTE):
        """Give the row of the agent of a host that may be off: none of its agents, whatever their kind, has been heard of for long enough.

        Raises HostNotFound, HostUp, NotPossible.
        """
        agents = hosts.agents_of(tx, host)
        if kind not in agents:
            raise exceptions.HostNotFound(f'there is no host {host}')
        for known in agents.values():
            self.unheard(known)
        return agents[kind]

    def unheard(self, known):
        """Raise HostUp or NotPossible unless an agent is silent. known: its service row."""
        host = known.host
        if views.is_up(known, self.settings.host_down_after):
            raise exceptions.HostUp(f'{host} is not off: it was last heard of at {views.moment(known.last_seen)}')
        if not self.listened():
            raise exceptions.NotPossible(f'nobody has listened for {host} long enough to say that it is silent; try again in '
                                         f'{self.settings.host_down_after:.0f} s')

    def ask(self, context, request_id, prepare, wanted):
        """Write a request down. prepare: gives an Order for an open transaction, or raises why not; may be called twice. wanted: Wanted.

        Returns (row, transition); transition is None for a repeated request or a queued migration.
        """
        request_id = request_id or context.request_id
        try:
            return self.database.run(lambda tx: self._write(tx, context, request_id, prepare(tx)))
        except db_exception.DBDuplicateEntry as error:
            return self._lost_race(request_id, prepare, wanted, error)
        except exceptions.MigratorError:
            # What stands in its way may be the same request, taken before, or by another conductor a moment ago.
            known = self.database.run(lambda tx: ledger.by_request(tx, request_id))
            if known is None:
                raise
            return wanted.same(known), None

    def _write(self, tx, context, request_id, order):
        source, destination = order.source, order.destination
        now, migration_id = source.now, str(uuid.uuid4())
        new = types.SimpleNamespace(
            id=migration_id, kind=order.kind, resource=(Resource.VOLUME if order.volume[0] else Resource.INSTANCE).value,
            instance_uuid=order.instance[0], instance_name=order.instance[1], volume_id=order.volume[0], volume_name=order.volume[1],
            source_host=source.host, source_agent=source.kind, destination_host=destination.host if destination else '',
            destination_agent=destination.kind if destination else source.kind, parent_id=None, request_id=request_id, user=context.user,
            request=order.request, policy=vars(self._policy(order)).copy(),
            plan=order.plan(migration_id) if order.plan else {}, facts={}, progress={}, epoch=1, created_at=now,
            updated_at=now, looked_at=0, finished_at=None)
        ledger.lock_all(tx, order.locks, new.id)
        begun = self._begin(tx, new, order, context)
        if order.learn is not None:
            order.learn(tx, new.id)
        return new, begun

    def _begin(self, tx, new, order, context):
        """Let it begin in the same transaction if there is room; else it is queued."""
        workflow, agents = WORKFLOWS[new.kind], order.agents
        record = ledger.Record(new, new.created_at, Cursor(), Policy(**new.policy), address_of(order.source), address_of(order.destination))
        action = next_action(workflow, record.cursor, stimulus.Due(), record.now, record.policy,
                             {'options': new.request.get('options', {})})
        needs_place = bool(workflow.checks)
        new.admitted = needs_place and hosts.take_places(tx, agents, self.settings.max_migrations_per_host)
        begins = new.admitted or not needs_place
        cursor = action.cursor if begins else record.cursor
        waits = hosts.obstacle(agents, self.settings.max_migrations_per_host)
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

    def _policy(self, order):
        policy = Policy.of(self.settings, per_gib=self.settings.completion_timeout if order.limits else 0.0)
        return policy.limited(*order.limits) if policy.per_gib else policy

    def _lost_race(self, request_id, prepare, wanted, error):
        """Another conductor was faster: with the same request, or with another one for the same guest or volume."""
        def look(tx):
            known = ledger.by_request(tx, request_id)
            if known is not None:
                return wanted.same(known), None
            order = prepare(tx)
            for resource in order.locks:
                refuse_locked(tx, resource, order.called)
            raise exceptions.ResourceLocked(f'another request for the same {order.called.partition(" ")[0]} came at the same time; '
                                            'try again') from error
        return self.database.run(look)


def refuse_locked(tx, resource, called):
    """Raise ResourceLocked or AlreadyMigrating if somebody works on a resource. called: whose it is, in words. One statement."""
    holder = ledger.lock_holder(tx, resource)
    if holder is not None and holder.kind in MIGRATIONS:
        raise exceptions.AlreadyMigrating(f'{called} is being migrated already (migration {holder.id})')
    if holder is not None:
        raise exceptions.ResourceLocked(f'{called} is being worked on ({holder.kind} {holder.id})')


def subject_of(row):
    """Name what a workflow is about: the volume, else the guest."""
    return row.volume_name or row.volume_id or row.instance_name or row.instance_uuid


def address_of(row):
    """Give the address of an agent by its service row, with the database's time as `now`; None is nobody."""
    return ledger.address(row.now, row.process_id, row.monotonic, row.last_seen, row.places) if row is not None else ledger.Agent('', 0.0)


def action_of(action, kind, cursor):
    """Give the decided action as it was stored."""
    return type(action)(kind, cursor, action.reason, action.wake_in)
