"""Where a live migration may stand and what may happen to it, by short names: what the tests of `decide` are written in."""
import dataclasses

from migrator.conductor import stimulus
from migrator.conductor.cursor import AbortCause, Cursor, Direction, Kind, Phase, Policy
from migrator.conductor.decide import next_action
from migrator.conductor.workflows import WORKFLOWS
from migrator.rpc.facts import Location
from migrator.states import GuestState, OperationState, PauseReason, Status

NOW = 1_000_000
POLICY = Policy(claim=8, poll=30, retry=2, observe=2, lost_after=60, step_attempts=3)
LIVE = WORKFLOWS['live_migration']

PRE, MIGRATE = 'pre_live_migration', 'live_migration'
POST_DESTINATION, POST_SOURCE = 'post_live_migration_at_destination', 'post_live_migration_at_source'
UNDO_DESTINATION, UNDO_SOURCE = 'rollback_live_migration_at_destination', 'rollback_live_migration_at_source'
SHORT = {PRE: 'pre', MIGRATE: 'mig', POST_DESTINATION: 'postD', POST_SOURCE: 'postS', UNDO_DESTINATION: 'undoD', UNDO_SOURCE: 'undoS'}

RUNNING, ABSENT, OFF = Location(GuestState.RUNNING), Location(GuestState.ABSENT), Location(GuestState.OFF)
INCOMING, UNREACHABLE = Location(GuestState.INCOMING), Location(GuestState.UNREACHABLE)
COPYING = Location(GuestState.RUNNING, job_active=True)
POST_COPY = Location(GuestState.PAUSED, PauseReason.POST_COPY, job_active=True)


def forward(step, status, phase=Phase.OPERATION, **more):
    """A cursor on the way forward at a step, with all earlier ones begun."""
    names = [s.name for s in LIVE.operations]
    return Cursor(status, phase, step, begun=tuple(names[:names.index(step) + 1]), **{'attempt': 1, **more})


def back(step, phase=Phase.OPERATION, status=Status.UNDOING, **more):
    """A cursor on the way back from a migration that had begun to run."""
    return Cursor(status, phase, step, Direction.UNDO, begun=(PRE, MIGRATE), error='it broke', **{'attempt': 1, **more})


POSITIONS = {
    'queued': Cursor(),
    'checking': Cursor(Status.CHECKING, Phase.CALLING, 'check_can_live_migrate_destination'),
    'preparing': forward(PRE, Status.PREPARING),
    'preparing, resting': forward(PRE, Status.PREPARING, Phase.RESTING, failures=1),
    'running': forward(MIGRATE, Status.RUNNING),
    'observing': forward(MIGRATE, Status.RUNNING, Phase.OBSERVING),
    'needs operator': forward(MIGRATE, Status.NEEDS_OPERATOR, Phase.OBSERVING, failures=1),
    'post-copy': forward(MIGRATE, Status.POST_COPY, Phase.OBSERVING, no_return=True),
    'finishing D': forward(POST_DESTINATION, Status.FINISHING, no_return=True),
    'finishing S': forward(POST_SOURCE, Status.FINISHING, no_return=True),
    'finishing S, last': forward(POST_SOURCE, Status.FINISHING, no_return=True, attempt=3, failures=2),
    'finishing, resting': forward(POST_SOURCE, Status.FINISHING, Phase.RESTING, no_return=True, failures=1),
    'undoing D': back(UNDO_DESTINATION),
    'undoing D, last': back(UNDO_DESTINATION, attempt=3, failures=2),
    'refused D': back(UNDO_DESTINATION, Phase.OBSERVING),
    'refused D, last': back(UNDO_DESTINATION, Phase.OBSERVING, attempt=3),
    'undoing S': back(UNDO_SOURCE),
    'undoing S, last': back(UNDO_SOURCE, attempt=3, failures=2),
    'undoing S, stuck': back(UNDO_SOURCE, Phase.RESTING, Status.NEEDS_OPERATOR, attempt=3, failures=3),
    'ended': Cursor(Status.COMPLETED, Phase.ENDED, POST_SOURCE, no_return=True)}

EVENTS = {
    'due': stimulus.Due(),
    'fit': stimulus.Checked(),
    'unfit': stimulus.Checked(('too small',)),
    'done': stimulus.Finished(OperationState.SUCCEEDED),
    'failed': stimulus.Finished(OperationState.FAILED, 'no luck'),
    'untouched': stimulus.Finished(OperationState.FAILED, 'the guest runs here', untouched=True),
    'broken': stimulus.Finished(OperationState.INTERRUPTED, 'the agent ended while it ran'),
    'alive': stimulus.Alive(),
    'unknown': stimulus.Unknown(),
    'silent': stimulus.Silent('beta'),
    'lost': stimulus.Silent('beta'),       # and has been so for too long
    'busy': stimulus.Refused('beta has no room'),
    'source': stimulus.Observed(RUNNING, ABSENT),
    'off': stimulus.Observed(OFF, INCOMING),
    'dest': stimulus.Observed(ABSENT, RUNNING),
    'copying': stimulus.Observed(COPYING, INCOMING),
    'pcopy': stimulus.Observed(POST_COPY, RUNNING),
    'mute': stimulus.Observed(UNREACHABLE, INCOMING),
    'odd': stimulus.Observed(RUNNING, RUNNING),
    'abort': stimulus.Abort('tester')}


def at(position, **changes):
    """Give the cursor of a position, changed."""
    return dataclasses.replace(POSITIONS[position], **changes)


def decide(cursor, event, now=NOW, policy=POLICY, workflow=LIVE):
    """Decide; cursor and event by name or as they are."""
    cursor = POSITIONS[cursor] if isinstance(cursor, str) else cursor
    if event == 'lost':
        cursor = dataclasses.replace(cursor, silent_since=now - 60_000)
    return next_action(workflow, cursor, EVENTS[event] if isinstance(event, str) else event, now, policy)


def short(action, cursor):
    """Write an action as a word of the table.

    . ignored, ! refused, wait, op (waits for an operator), a step's short name (a new operation; ~ the same one again), COMP FAIL CANC
    (ended), +$ with a debt, +x the source is told to cancel the job.
    """
    if action.kind in (Kind.IGNORE, Kind.REFUSE):
        return '.' if action.kind is Kind.IGNORE else '!'
    if action.kind is Kind.END:
        word = action.cursor.status.value[:4].upper()
    elif action.kind is Kind.START:
        same = (action.cursor.step, action.cursor.attempt) == (cursor.step, cursor.attempt)
        word = SHORT[action.cursor.step] + ('~' if same else '')
    else:
        stuck = action.cursor.status is Status.NEEDS_OPERATOR and action.kind is Kind.WAIT
        word = 'op' if stuck else action.kind.value
    return word + ('+$' if action.debts else '') + ('+x' if action.abort_job else '')


def aborted(cursor, cause=AbortCause.USER):
    """The same place with a pending abort."""
    return dataclasses.replace(cursor, abort=cause)
