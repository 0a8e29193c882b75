"""The shell of the engine: one transaction per transition, then the messages that it asks for.

`handle` takes a stimulus to a workflow. Within one transaction the row is read, `decide` says what follows, and the new cursor is
stored by compare-and-swap on the epoch, with the timeline and whatever the catalogue learns. The operation that it stands at is
named by the cursor: migration, step and attempt. Only then is anything sent. A conductor may die between any two lines: the row
says what is due, and the sweep of another one takes it up.
"""
import dataclasses
import time

import tenacity
from oslo_db import exception as db_exception
from oslo_log import log

from migrator import concurrency, exceptions
from migrator.conductor import interruptions, stimulus
from migrator.conductor.agents import Reply, arguments_of, check_reporter, finished, host_of, place_of
from migrator.conductor.claims import Claims
from migrator.conductor.commits import commit, ended
from migrator.conductor.cursor import Direction, Kind, Phase
from migrator.conductor.db import attestations, catalogue, debts, hosts, ledger, views
from migrator.conductor.decide import next_action
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.model import Role
from migrator.rpc import context as rpc_context
from migrator.rpc import facts
from migrator.states import GuestState, InstanceState, OperationState, Status

LOG = log.getLogger(__name__)

#: Kinds of action that are worth a line in the timeline even if the reason did not change.
NOTED = (Kind.START, Kind.END)

#: What `_transit_from` returns when it has to be read again.
CONFLICT = object()

#: Somebody else wrote since it was read: the workflow, or, as a heartbeat does with a new guest, a row of the catalogue.
OVERTAKEN = (ledger.EpochConflict, db_exception.DBDuplicateEntry)

#: What drivers may tell of a finished job.
STATISTICS = ('downtime_ms', 'elapsed_ms', 'memory_total', 'memory_processed', 'disk_total', 'disk_processed', 'iteration')


#: Repeats a transaction that reads a workflow and stores it, as long as others are faster.
until_stored = tenacity.retry(retry=tenacity.retry_if_exception_type(OVERTAKEN), stop=tenacity.stop_after_attempt(50),
                              wait=tenacity.wait_random(0, 0.02), reraise=True)


@dataclasses.dataclass(frozen=True)
class Transition:
    """What a transaction decided, to be carried out after its commit.

    before, after: the workflow as it was read and as it is stored now. reply: what led to it. at: when it was read, by the engine's clock.
    waiting: queued workflows that may find a place now.
    """

    before: ledger.Record
    after: ledger.Record
    action: object
    reply: Reply
    at: float
    waiting: tuple = ()


class Engine:
    """Moves workflows on. Stateless: any number of them, in any number of processes, work on the same rows."""

    def __init__(self, database, agents, places=4, clock=time.monotonic):
        """places: how many live migrations one host takes part in at once. clock: seconds, for the time between two transactions."""
        self.database = database
        self.agents = agents
        self.places = places
        self.clock = clock
        self.claims = Claims()

    def handle(self, migration_id, reply, request=None):
        """Bring a stimulus to a workflow, and go on until it waits for the next event.

        migration_id: the workflow. reply: an agents.Reply. request: the caller's context, for the timeline's user.
        Raises MigrationNotFound, and TooLate for a refused abort. Late and doubled stimuli change nothing.
        """
        with self.claims.of(migration_id):
            transition = self.take(migration_id, reply, request)
            if transition is not None:
                self.go_on(migration_id, transition)

    def take(self, migration_id, reply, request=None, last=None):
        """Store what a stimulus leads to, and do nothing yet. Returns the Transition, or None when there is nothing to do.

        last: the Transition that led to this stimulus. What was written then need not be read again, unless somebody wrote since.
        """
        try:
            transition = self._transit_from(migration_id, reply, last) if last is not None else None
            if last is None or transition is CONFLICT:
                transition = self._transit(migration_id, reply, request)
        except exceptions.MigrationNotFound:
            LOG.info('there is no migration %s; what concerns it is dropped', migration_id)
            raise
        if transition is not None:
            row = transition.after.row
            rpc_context.MigratorContext(request_id=row.request_id, migration_id=row.id)
            self._log(transition)
        return transition

    def go_on(self, migration_id, transition):
        """Do what a stored transition asks for, and all that follows, until the workflow waits for the next event.

        Raises nothing: whatever goes wrong here, the row says what is due, and the sweep takes it up.
        """
        try:
            with self.claims.of(migration_id):
                while transition is not None:
                    row = transition.after.row
                    context = rpc_context.MigratorContext(request_id=row.request_id, migration_id=migration_id)
                    reply = self.perform(context, transition)
                    if reply is not None:
                        reply = dataclasses.replace(reply, asked=transition.after.now)
                    transition = self.take(migration_id, reply, last=transition) if reply is not None else None
        except exceptions.MigratorError as error:
            LOG.warning('migration %s will be looked at again: %s', migration_id, error)
        except Exception:
            LOG.exception('migration %s will be looked at again', migration_id)

    def let_go(self):
        """Make what is still being worked on here due at once, for other conductors; called at the end of the process. Returns the ids.

        Whoever takes one up is protected from what this process may still write by the epoch, and the agents by the operation's id.
        """
        held = self.claims.held()
        if held:
            self.database.run(lambda tx: ledger.make_due(tx, held))
        return held

    def remark(self, migration_id, request, what, reason):
        """Add what a user did to the timeline of a migration."""
        def write(tx):
            record = ledger.load(tx, migration_id)
            ledger.note(tx, migration_id, record.now, record.cursor, what, reason, request.user, request.request_id)
        self.database.run(write)

    @staticmethod
    def _log(transition):
        row, action = transition.before.row, transition.action
        LOG.info('%s of %s: %s -> %s, %s: %s', row.kind, name_of(row), row.status, action.cursor.status,
                 f'{action.kind} {action.cursor.step}'.strip(), action.reason)

    # --- the transaction ---

    @until_stored
    def _transit(self, migration_id, reply, request):
        return self.database.run(lambda tx: self.transit(tx, migration_id, reply, request))

    def _transit_from(self, migration_id, reply, last):
        """Go on from what the last transition stored, without reading it. Returns CONFLICT if that is not how it stands any more."""
        try:
            return self.database.run(lambda tx: self.transit(tx, migration_id, reply, record=last.after.later(self.clock() - last.at)))
        except OVERTAKEN:
            return CONFLICT

    def transit(self, tx, migration_id, reply, request=None, record=None):
        """Decide and store one transition within an open transaction. Returns a Transition, or None when nothing is to be done.

        record: the workflow if it is known, else it is read. Raises EpochConflict if somebody else moved it meanwhile.
        """
        record = record or ledger.load(tx, migration_id)
        at = self.clock()       # after the reading: time that is reckoned from here on is never ahead of the database's
        row = record.row
        if reply.host:
            check_reporter(reply.host, reporter_of(row, reply.op_id), reply.op_id)
        if stale(record, reply):
            return None
        action = next_action(WORKFLOWS[row.kind], record.cursor, reply.event, record.now, record.policy, known_of(record, reply))
        if action.kind is Kind.REFUSE:
            raise exceptions.TooLate(f'{action.reason} (migration {row.id})')
        if action.kind is Kind.IGNORE:
            return None
        if action.kind is Kind.ADMIT:
            action = self._admit(tx, record, action)
        after = heard(tx, record, self._store(tx, record, action, reply, request), reply.event)
        return Transition(record, after, action, reply, at, tuple(self._effects(tx, record, action, reply)))

    def _admit(self, tx, record, action):
        """Take a place at both hosts, or stay in the queue."""
        wf, row = WORKFLOWS[record.row.kind], record.row
        if not wf.checks or row.admitted:
            return dataclasses.replace(action, kind=Kind.CALL if wf.checks else Kind.START)
        wanted = {row.source_host, row.destination_host}
        rows = hosts.get_many(tx, wanted, row.source_agent)
        there = rows.get(row.destination_host)
        if there is not None and not there.enabled:
            why = f'host {row.destination_host} is disabled: {there.disabled_reason}'
            cursor = dataclasses.replace(record.cursor, status=Status.FAILED, phase=Phase.ENDED, error=why)
            return dataclasses.replace(action, kind=Kind.END, cursor=cursor, reason=why)
        restarting = [host for host, known in rows.items() if is_restarting(known, record.policy)]
        if restarting:
            why = f'waits until the agent of {" and ".join(restarting)} is back'
        elif len(rows) == len(wanted) and hosts.take_places(tx, rows.values(), self.places):
            return dataclasses.replace(action, kind=Kind.CALL)
        else:
            why = hosts.obstacle(rows.values(), self.places) or 'waits for a free place at its hosts'
        return dataclasses.replace(action, kind=Kind.WAIT, cursor=record.cursor, reason=why, wake_in=record.policy.queue)

    def _store(self, tx, record, action, reply, request):
        row, cursor = record.row, action.cursor
        ended = action.kind is Kind.END
        again = action.kind is Kind.POLL or tried_again(record, action) \
            or (action.kind is Kind.OBSERVE and record.cursor.phase is Phase.OBSERVING)
        values = {'reason': row.reason if again else action.reason}
        if reply.plan:
            values['plan'] = reply.plan
            values['policy'] = vars(limited_by(record.policy, reply.plan))
        if isinstance(reply.event, stimulus.Finished):
            values['facts'] = told_by(record, reply)
        looked = reply.asked or (record.now if reply.host else 0)
        if looked > row.looked_at:
            values['looked_at'] = looked
        if ended:
            values['finished_at'] = record.now
        if WORKFLOWS[row.kind].checks:
            values['admitted'] = not ended and (row.admitted or cursor.phase is not Phase.QUEUED)
        after = ledger.store(tx, record, cursor, wake_at=None if ended else record.now + int(action.wake_in * 1000), **values)
        if not again and (action.kind in NOTED or action.reason != row.reason):
            ledger.note(tx, row.id, record.now, cursor, action.kind.value, action.reason,
                        user=request.user if request else '', request_id=request.request_id if request else row.request_id)
        return after

    def _effects(self, tx, record, action, reply):
        """What the catalogue, the debts, the locks and the places learn in the same transaction. Returns who may find a place now."""
        row = record.row
        commit(tx, record, action.commit, reply, told_by(record, reply))
        if action.guest_off:
            catalogue.update(tx, row.instance_uuid, state=InstanceState.STOPPED.value)
        if action.guest_lost:
            catalogue.update(tx, row.instance_uuid, state=InstanceState.UNKNOWN.value)
        before = ''
        for method in action.debts:
            place = place_of(row, method)
            made = debts.insert(tx, record, place.host, method, debt_arguments(row, method), action.owing, place.agent, before)
            before = made if action.in_turn else ''
        if action.kind is Kind.END:
            ended(tx, row, action.cursor)
            ledger.unlock_all(tx, row.id)
            if row.admitted:
                return self._give_places(tx, record)
        return ()

    def _give_places(self, tx, record):
        """Give the places back; returns the queued workflows that wait for one of these hosts.

        Nobody waits for a host that had places left. Should one have become full since it was read, the sweep admits who waits for it.
        """
        names = [record.row.source_host, record.row.destination_host]
        hosts.give_places(tx, names, record.row.source_agent)
        full = any(agent.places + 1 >= self.places for agent in (record.source, record.destination))
        return ledger.queued(tx, names, self.places, record.row.source_agent) if full else ()

    # --- after the commit ---

    def perform(self, context, transition):
        """Send what a transition asks for. Returns the next Reply if the answer is there at once, else None."""
        action, row = transition.action, transition.after.row
        if action.abort_job:
            concurrency.spawn(self.agents.abort_job, context, row, action.cursor.step)
        match action.kind:
            case Kind.CALL:
                return self.agents.checked(context, row)
            case Kind.START:
                return self._begin(context, transition)
            case Kind.POLL:
                place = place_of(row, action.cursor.step)
                return final(self.agents.poll(context, transition.after.op_id, place), agent_of(transition.after, place.role))
            case Kind.OBSERVE:
                dead = (transition.after.source.dead, transition.after.destination.dead)
                return self.agents.observed(context, row, fresh_location(transition), dead)
            case Kind.END:
                for waiting in transition.waiting:
                    concurrency.spawn(self.handle, waiting, Reply(stimulus.Due()))
        return None

    def _begin(self, context, transition):
        record = transition.after
        row, step = record.row, record.cursor.step
        place = place_of(row, step)
        agent = agent_of(record, place.role)
        envelope = facts.Envelope(
            op_id=record.op_id, migration_id=row.id, epoch=row.epoch, process_id=agent.process_id, request_id=row.request_id,
            not_after=agent.monotonic + record.policy.lost_after if agent.process_id else 0.0)
        reply = final(self.agents.begin(context, step, place, envelope, arguments_of(row, step)), agent)
        if reply is None and record.cursor.silent_since:
            return Reply(stimulus.Alive(), record.op_id)      # it was taken after all: whatever silence there was is over
        return reply

    # --- what agents report ---

    def operation_finished(self, report):
        """Store an agent's report; a doubled or late one changes nothing. Returns the Transition to go on with, or None.

        Raises WrongHost for a report of a host that the operation was not sent to.
        """
        return self.take(report.migration_id, dataclasses.replace(finished(report), host=report.host))


def name_of(row):
    """Name what a workflow is about, for the log."""
    return row.instance_name or row.instance_uuid or row.volume_name or row.volume_id


def reporter_of(row, op_id):
    """Name the host that an operation of a workflow is sent to. Raises InvalidRequest if the workflow has no such step."""
    try:
        return place_of(row, op_id.split('/')[1]).host
    except KeyError as error:
        raise exceptions.InvalidRequest(f'{op_id} is no operation of a {row.kind}') from error


def is_restarting(host, policy):
    """True for a host whose agent said lately that it stops: it is expected back. host: a row of service with the time as `now`."""
    return bool(host.draining) and views.lately(host.now, host.last_seen, policy.lost_after)


def limited_by(policy, plan):
    """The time limit, once it is known what is copied."""
    return policy.limited(plan['memory_mib'], [disk['size'] for disk in plan['disks'] if disk['target'] in plan['copy']])


def tried_again(record, action):
    """True for one more try of what an operator is waited for: it is counted, and worth a line only if it ends in another way."""
    before, after = record.cursor, action.cursor
    return action.kind is Kind.START and before.step == after.step and before.status is after.status is Status.NEEDS_OPERATOR


def stale(record, reply):
    """True for what does not concern the workflow any more: a report of another operation, a wake-up that another conductor took."""
    if reply.op_id and reply.op_id != record.op_id:
        return True
    if isinstance(reply.event, stimulus.Due):
        ahead = None if record.row.next_wakeup is None else record.row.next_wakeup - record.now
        return record.cursor.phase is not Phase.QUEUED and (ahead is None or 0 < ahead <= record.policy.horizon * 1000)
    return False


def final(reply, agent):
    """Make a silence final if it is that of a host which is attested to be off."""
    if agent.dead and reply is not None and isinstance(reply.event, stimulus.Silent):
        return dataclasses.replace(reply, event=dataclasses.replace(reply.event, dead=True))
    return reply


def heard(tx, before, after, event):
    """Let evidence win: a host that answers is not off, whatever was attested. Returns the record as it is from now on."""
    if isinstance(event, stimulus.Observed):
        for role in Role:
            agent, said = agent_of(before, role), getattr(event, role.value).state
            if agent.dead and said not in (GuestState.DEAD, GuestState.UNREACHABLE):
                host = host_of(before.row, role)
                attestations.void(tx, before.row.id, host)
                ledger.note(tx, before.row.id, before.now, after.cursor, 'contradicted', f'{host} answers: it is not off, as was attested')
                after = dataclasses.replace(after, **{role.value: dataclasses.replace(agent_of(after, role), dead=False)})
    return after


def told_by(record, reply):
    """Give the facts of a workflow, with what a step returned that has just ended."""
    known, step, event = record.row.facts, record.cursor.step, reply.event
    if not isinstance(event, stimulus.Finished):
        return known
    if event.state is OperationState.INTERRUPTED and record.cursor.direction is Direction.FORWARD:
        known = {**known, interruptions.NAME: interruptions.counted(known, step, reply.result)}
    return learned(known, step, reply.result)


def known_of(record, reply):
    """Give what the conditions of the table look at."""
    return {**told_by(record, reply), 'options': record.row.request.get('options', {})}


def learned(known, step, result):
    """Add what a step returned to the facts; statistics of the hypervisor's job are kept under a name of their own."""
    told = {k: v for k, v in result.items() if k in STATISTICS and isinstance(v, int) and v}
    added = {k: v for k, v in result.items() if k not in STATISTICS and k != 'location'}
    return {**known, step: added, 'statistics': {**known.get('statistics', {}), **told}}


def agent_of(record, role):
    """The address of the agent that has a role."""
    return record.destination if role is Role.DESTINATION else record.source


def fresh_location(transition):
    """What the source said of the guest in the very report that leads to this observation, if the step went well; else None."""
    event = transition.reply.event
    said = transition.reply.result.get('location')
    if isinstance(event, stimulus.Finished) and event.state is OperationState.SUCCEEDED and said:
        try:
            return facts.from_wire(facts.Location, said)
        except exceptions.InvalidRequest as error:
            LOG.warning('the source is asked, for what it said cannot be read: %s', error)
    return None


def debt_arguments(row, method):
    """What the agent is given when it pays the debt."""
    return {k: facts.to_wire(v) for k, v in arguments_of(row, method).items()}
