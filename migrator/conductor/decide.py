"""What comes next? The pure core of the engine: (workflow, cursor, stimulus, now) -> Action with its reason.

No I/O and no clock. Each handler is the answer to one stimulus; what the table says is looked up, never repeated here, so that a
new workflow is a new table. Before the point of no return a failure undoes; after it there is only forward. A time-out means
that nothing is known: it leads to a question, never to a conclusion.
"""
import dataclasses

from migrator.conductor import interruptions, locate, locate_volume, stimulus
from migrator.conductor.cursor import AbortCause, Action, Cursor, Direction, Kind, Phase, Policy, anchored
from migrator.conductor.locate import Verdict
from migrator.conductor.turns import (
    Situation,
    abort_words,
    advance,
    begin_undo,
    end,
    go_on,
    lost,
    observe,
    owe,
    rest,
    start,
    without_step,
)
from migrator.conductor.workflows.model import Workflow
from migrator.states import OperationState, Status

replace = dataclasses.replace


def next_action(workflow: Workflow, cursor: Cursor, event, now: int, policy: Policy, known=None) -> Action:
    """Decide what one event means for a workflow that stands at `cursor`. `now` is in milliseconds of the database's clock.

    known: what conditions look at: under each step's name what it returned, that of the event among it, and `options`.
    """
    cursor = anchored(cursor, now, policy)
    at = Situation(workflow, cursor, policy, now, known or {})
    if cursor.status.terminal:
        if isinstance(event, (stimulus.Abort, stimulus.Recover)):
            return Action(Kind.REFUSE, cursor, f'the migration has ended already: {cursor.status.value}')
        return Action(Kind.IGNORE, cursor, 'it has ended')
    return HANDLERS[type(event)](at, event)


# --- one handler for each stimulus ---

def on_due(at: Situation, _event) -> Action:
    """Nobody worked on it lately: its conductor may have died, a message may be lost, or a rest is over."""
    cursor = at.cursor
    match cursor.phase:
        case Phase.QUEUED:
            return admit(at)
        case Phase.CALLING:
            return Action(Kind.CALL, cursor, 'the checks are asked again', wake_in=at.policy.claim)
        case Phase.RESTING:
            if cursor.abort and not at.undoing and not cursor.no_return:
                words = abort_words(cursor)
                return observe(at, replace(cursor, failures=0), words) if at.step.asks else begin_undo(at, cursor, words)
            return start(at, cursor, cursor.step, 'another attempt')
        case Phase.OBSERVING:
            return expire(at, observe(at, cursor, 'the hosts are asked again'))
    return expire(at, Action(Kind.POLL, cursor, 'the agent is asked how far it is', wake_in=poll_in(at, cursor)))


def on_recover(at: Situation, _event) -> Action:
    """Somebody asked for what the clock would have asked for later: nothing else is done, and no state is set by hand."""
    return on_due(at, stimulus.Due())


def poll_in(at: Situation, cursor: Cursor) -> float:
    """Seconds until the current operation is asked for: soon while an abort is pending, and not later than its deadline."""
    if cursor.abort and not at.undoing:
        return at.policy.retry
    if cursor.deadline and not at.undoing:
        return max(at.policy.retry, min(at.policy.poll, (cursor.deadline - at.now) / 1000))
    return at.policy.poll


def expire(at: Situation, action: Action) -> Action:
    """Add what the clock and a pending abort demand of a migration whose job may be running: a hypervisor's, or a copy."""
    cursor = action.cursor
    if at.undoing or cursor.no_return or not at.step.cancel:
        return action
    if not cursor.abort and cursor.deadline and at.now >= cursor.deadline:
        cursor = replace(cursor, abort=AbortCause.TIMEOUT)
        action = replace(action, cursor=cursor, reason=abort_words(cursor), wake_in=at.policy.retry)
    return replace(action, abort_job=bool(cursor.abort))


def admit(at: Situation) -> Action:
    """There may be room now. The checks come first; a workflow without checks begins with its first operation."""
    checks = at.workflow.checks
    if not checks:
        first = go_on(at, at.cursor, '', '')
        return replace(first, kind=Kind.ADMIT)
    cursor = replace(at.cursor, phase=Phase.CALLING, status=checks[0].status, step=checks[0].name)
    return Action(Kind.ADMIT, cursor, 'source and destination are checked', wake_in=at.policy.claim)


def on_checked(at: Situation, event: stimulus.Checked) -> Action:
    """The facts are in. A refusal changes nothing anywhere (anchors, compute-nova 3.13)."""
    cursor = at.cursor
    if cursor.phase is not Phase.CALLING:
        return Action(Kind.IGNORE, cursor, 'late answers of the checks')
    if event.reasons:
        return end(replace(cursor, error='; '.join(event.reasons)), Status.FAILED, '; '.join(event.reasons))
    return go_on(at, cursor, '', 'source and destination fit each other')


def on_finished(at: Situation, event: stimulus.Finished) -> Action:
    """The current operation ended, in whatever way."""
    cursor = at.cursor
    if cursor.phase is not Phase.OPERATION:
        return Action(Kind.IGNORE, cursor, 'a report that is no longer waited for')
    if at.undoing:
        return undo_finished(at, event)
    if at.step.observe:
        # Its own outcome is a hint: an exception does not say where the guest is (anchors, compute-nova 2 and 3.2).
        said = f'{cursor.step} {event.state.value}' + (f': {event.error}' if event.error else '')
        error = cursor.error or ('' if event.state is OperationState.SUCCEEDED else event.error or said)
        return observe(at, replace(cursor, error=error, silent_since=0, failures=0), said)
    if event.state is OperationState.SUCCEEDED:
        return step_succeeded(at)
    return step_failed(at, event)


def step_succeeded(at: Situation) -> Action:
    """A step is done, and its success is proof enough. What it returned tells what the catalogue learns, or that it has declined."""
    cursor, step = at.cursor, at.step
    commit = step.learned({**at.known, 'moved': cursor.no_return})
    if step.outcomes and not commit:
        # Whoever declines has changed nothing; but an earlier attempt may have, that was interrupted.
        return advance(at, without_step(cursor) if cursor.attempt == 1 else cursor, f'{step.name}: {step.declined}')
    if not commit.final:
        return advance(at, cursor, '', commit=commit)
    if cursor.abort and not step.no_return_when:        # nothing of it is committed yet, and the source has lost nothing
        return begin_undo(at, cursor, abort_words(cursor))
    late = '. The abort came too late' if cursor.abort else ''
    return advance(at, replace(cursor, no_return=True, error=''), f'{step.name}: it is at the destination from now on{late}', commit=commit)


def step_failed(at: Situation, event: stimulus.Finished) -> Action:
    """A step without an observation of its own failed or was interrupted."""
    cursor, step = at.cursor, at.step
    said = event.error or f'{cursor.step} was interrupted: the agent restarted'
    if step.owed or step.vital or (step.repeat and event.state is OperationState.INTERRUPTED):
        if attempts_left(at):
            return rest(at, cursor, said)
        if step.vital:
            return rest(at, replace(cursor, status=Status.NEEDS_OPERATOR), said)
        if step.owed:
            return owe(at, cursor, said)
    words = abort_words(cursor) if cursor.abort and step.cancel else f'{step.name}: {said}'
    if event.untouched and cursor.attempt == 1 and not (step.undo and step.undo.harmless):
        return begin_undo(at, without_step(cursor), words)      # what stood in the way is not ours
    if step.doubt:
        # Whoever raises has not declined: what is true now, nobody but the hosts can say.
        return observe(at, replace(cursor, error=cursor.error or words, silent_since=0, failures=0), words)
    return begin_undo(at, cursor, words)


def attempts_left(at: Situation) -> bool:
    """True if the current step is tried again. One that keeps what it did is not given up while each attempt comes further."""
    idle = interruptions.idle(at.known, at.step.name) if at.step.keeps else None
    return at.cursor.attempt < at.policy.step_attempts if idle is None else idle < at.policy.copy_attempts


def undo_finished(at: Situation, event: stimulus.Finished) -> Action:
    """An undo ended. One that keeps failing is named as a debt, unless a guest's life hangs on it."""
    cursor = at.cursor
    if event.state is OperationState.SUCCEEDED:
        if at.step.undo.vital and cursor.error.startswith(locate.WENT_DOWN):
            # It was off and is back, or never was off, whatever was attested: the end must not say that the guest is gone with it.
            cursor = replace(cursor, error=f'{cursor.error}; since then the host has answered, and what was left to do there is done')
        return advance(at, cursor, '', commit=at.step.undo.commit)
    said = f'{cursor.step}: {event.error or "interrupted: the agent restarted"}'
    if event.untouched and not at.step.undo.vital and at.moved:
        # Its precondition says that the guest may be where it was thought never to have run. The hosts know.
        return observe(at, cursor, said)
    if cursor.attempt < at.policy.step_attempts:
        return rest(at, cursor, said)
    if at.step.undo.vital:
        return rest(at, replace(cursor, status=Status.NEEDS_OPERATOR), said)
    return owe(at, cursor, event.error or 'the agent was interrupted')


def on_alive(at: Situation, _event) -> Action:
    """The operation runs: whatever silence there was is over."""
    cursor = at.cursor
    called = cursor.phase is Phase.OPERATION and not at.undoing and at.step.vital and cursor.status is Status.NEEDS_OPERATOR
    if cursor.phase is not Phase.OPERATION or not (cursor.silent_since or called):
        return Action(Kind.IGNORE, cursor, 'as expected')
    words = 'the agent answers again' if cursor.silent_since else f'{cursor.step} is at work again'
    cursor = replace(cursor, silent_since=0, status=at.step.status if called else cursor.status)
    return Action(Kind.WAIT, cursor, words, wake_in=poll_in(at, cursor))


def on_unknown(at: Situation, _event) -> Action:
    """The agent never got the operation, or lost its journal: the same operation is issued again (same op_id, no new attempt)."""
    cursor = at.cursor
    if cursor.phase is not Phase.OPERATION:
        return Action(Kind.IGNORE, cursor, 'no longer waited for')
    if cursor.abort and not at.undoing and not cursor.no_return and at.workflow.abortable:
        if at.step.asks:
            return observe(at, replace(cursor, failures=0), 'the agent does not know the operation, and an abort is pending')
        return begin_undo(at, cursor, abort_words(cursor))
    # An agent that answers this but refuses the work is as good as silent: the time is counted until it takes the operation.
    return Action(Kind.START, cursor, 'the agent has not got the operation; it is sent again', wake_in=at.policy.claim)


def on_silent(at: Situation, event: stimulus.Silent, refused: str = '') -> Action:
    """No answer. Wait and ask again; after a long time, or if the host is off, go the way that needs no answer, if there is one.

    refused: why an agent that did answer takes no work, if it is that.
    """
    cursor = at.cursor
    if cursor.phase is Phase.CALLING:
        # Nothing was begun yet, and a host that is restarted answers soon: only one that stays silent ends it.
        cursor = replace(cursor, silent_since=cursor.silent_since or at.now, failures=cursor.failures + 1)
        error = f'{event.host or "a host"} did not answer the checks'
        if at.lost(cursor):
            return end(replace(cursor, error=error), Status.FAILED, error)
        words = f'{error}; they are asked again, and it fails after {at.policy.lost_after:.0f} s'
        return Action(Kind.WAIT, cursor, words, wake_in=at.backoff(cursor.failures))
    if cursor.phase is not Phase.OPERATION:
        return Action(Kind.IGNORE, cursor, 'no longer waited for')
    cursor = replace(cursor, silent_since=cursor.silent_since or at.now, failures=cursor.failures + 1)
    who = event.host or 'the host'
    if not event.dead and not at.lost(cursor):
        words = f'{refused or f"{who} does not answer"}; {outlook(at)} after {at.policy.lost_after:.0f} s'
        return expire(at, Action(Kind.WAIT, cursor, words, wake_in=at.backoff(cursor.failures)))
    why = f'{refused} (for {at.policy.lost_after:.0f} s)' if refused else f'{who} has not answered for {at.policy.lost_after:.0f} s'
    said = f'{who} is attested to be off' if event.dead else why
    if at.undoing:
        if at.step.undo.vital and not event.dead:
            cursor = replace(cursor, status=Status.NEEDS_OPERATOR)
            return Action(Kind.WAIT, cursor, f'{cursor.step}: {said}', wake_in=at.backoff(cursor.failures))
        if at.step.undo.vital:
            # With its host the guest went down, too: there is nothing to resume until the host is back. It is not as it was before,
            # so that it has failed even if an abort was wanted.
            before = f'; before that: {cursor.error}' if cursor.error else ''
            cursor = replace(cursor, abort=AbortCause.NONE, error=f'{locate.WENT_DOWN}{before}')
        return owe(at, cursor, said, guest_lost=at.step.undo.vital)
    if at.step.vital:
        cursor = replace(cursor, status=Status.NEEDS_OPERATOR)
        return Action(Kind.WAIT, cursor, f'{cursor.step}: {said}', wake_in=at.backoff(cursor.failures))
    if at.step.asks:
        return observe(at, replace(cursor, failures=0, error=cursor.error or (f'{cursor.step}: {said}' if at.step.doubt else '')), said)
    if at.step.owed:
        return owe(at, cursor, said)
    return begin_undo(at, cursor, f'{cursor.step}: {said}')


def outlook(at: Situation) -> str:
    """Say what becomes of a step whose host stays silent, as `on_silent` has it; how long that is follows."""
    if at.undoing:
        return 'needs an operator' if at.step.undo.vital else 'this is left to it as a debt'
    if at.step.vital:
        return 'needs an operator'
    if at.step.observe:
        return 'unless the hosts tell where the guest is, it needs an operator'
    if at.step.asks:
        return 'both arrays are asked what they have'
    return 'this is left to it as a debt' if at.step.owed else 'what was begun is undone'


def on_refused(at: Situation, event: stimulus.Refused) -> Action:
    """The agent answered but took nothing. It is asked again like one that is silent, and given up after as long."""
    return on_silent(at, stimulus.Silent(), event.why)


def on_observed(at: Situation, event: stimulus.Observed) -> Action:
    """The hosts said what is true. From here everything follows from the verdict."""
    cursor = at.cursor
    if cursor.phase is not Phase.OBSERVING:
        return Action(Kind.IGNORE, cursor, 'late answers')
    find = locate_volume.find if isinstance(event.source, locate_volume.Answer) else locate.find
    found = find(event.source, event.destination)
    if found.verdict is Verdict.GONE_WITH_BOTH and not cursor.no_return:
        return lost(at, cursor, found.reason)
    if at.undoing:
        if found.verdict in (Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE, Verdict.GONE_WITH_SOURCE):
            return replace(undo_refused(at, found.reason), guest_off=found.verdict is Verdict.OFF_AT_SOURCE,
                           guest_lost=found.verdict is Verdict.GONE_WITH_SOURCE)
        if found.verdict in (Verdict.AT_DESTINATION, Verdict.POST_COPY):
            at = turned_forward(at)
            cursor = at.cursor
    match found.verdict:
        case Verdict.AT_DESTINATION:
            late = ' The abort came too late.' if cursor.abort else ''
            cursor = replace(cursor, no_return=True, error='', status=at.step.status)
            return advance(at, cursor, found.reason + late, commit=at.step.commit)
        case Verdict.AT_SOURCE | Verdict.OFF_AT_SOURCE if not cursor.no_return:
            off = found.verdict is Verdict.OFF_AT_SOURCE
            error = found.reason if off else cursor.error or found.reason
            if cursor.abort:
                error = abort_words(cursor)
            return begin_undo(at, replace(cursor, status=at.step.status, error=''), error, guest_off=off)
        case Verdict.GONE_WITH_SOURCE if not cursor.no_return:
            # It is not as it was before, so that it has failed even if an abort was wanted.
            cursor = replace(cursor, status=at.step.status, error='', abort=AbortCause.NONE)
            return begin_undo(at, cursor, found.reason, guest_lost=True)
        case Verdict.POST_COPY:
            cursor = replace(cursor, no_return=True, status=Status.POST_COPY, silent_since=0)
            return Action(Kind.WAIT, cursor, found.reason, wake_in=at.policy.observe)
        case Verdict.IN_PROGRESS:
            cursor = replace(cursor, status=Status.UNDOING if at.undoing else at.step.status, silent_since=0, failures=0)
            return expire(at, Action(Kind.WAIT, cursor, found.reason, wake_in=at.policy.observe))
        case Verdict.SILENT:
            cursor = replace(cursor, silent_since=cursor.silent_since or at.now)
            if not at.lost(cursor):
                words = f'{found.reason}; needs an operator after {at.policy.lost_after:.0f} s'
                return expire(at, Action(Kind.WAIT, cursor, words, wake_in=at.policy.observe))
        case Verdict.UNRESOLVED if not cursor.failures:
            # The hosts are asked one after the other, so a contradiction may be a switch that was seen half. Look once more.
            return Action(Kind.WAIT, replace(cursor, failures=1), found.reason, wake_in=at.policy.observe)
    return Action(Kind.WAIT, replace(cursor, status=Status.NEEDS_OPERATOR), found.reason, wake_in=at.policy.observe * 4)


def undo_refused(at: Situation, reason: str) -> Action:
    """An undo was refused, and the hosts say that undoing is right: it is tried again, and put off as a debt after some times."""
    cursor = replace(at.cursor, status=Status.UNDOING, silent_since=0)
    if cursor.attempt < at.policy.step_attempts:
        return rest(at, cursor, f'{cursor.step} was refused, and is tried again: {reason}')
    return owe(at, cursor, f'it was refused: {reason}')


def turned_forward(at: Situation) -> Situation:
    """The guest is proven where an undo was to clear: back to the step that moved it, of which this is the observation."""
    cursor = replace(at.cursor, direction=Direction.FORWARD, step=at.moved, attempt=1, failures=0)
    return replace(at, cursor=cursor)


def on_abort(at: Situation, _event) -> Action:
    """A durable flag first; what it leads to depends on where the workflow stands. In a race with the switch, the guest decides."""
    cursor = at.cursor
    if not at.workflow.abortable:
        return Action(Kind.REFUSE, cursor, f'{at.workflow.kind} cannot be aborted')
    if cursor.no_return:
        return Action(Kind.REFUSE, cursor, 'the migration has passed its point of no return')
    if at.undoing and not cursor.abort:
        return Action(Kind.REFUSE, cursor, 'the migration is being undone already')
    if cursor.abort is AbortCause.USER or at.undoing:
        return Action(Kind.IGNORE, cursor, 'it is being aborted already')
    cursor = replace(cursor, abort=AbortCause.USER)
    words = abort_words(cursor)
    match cursor.phase:
        case Phase.QUEUED | Phase.CALLING:      # the checks have no traces
            return end(replace(cursor, error=words), Status.CANCELLED, words)
        case Phase.RESTING if not at.step.asks:
            return begin_undo(at, cursor, words)
    running = bool(at.step.cancel) and cursor.phase in (Phase.OPERATION, Phase.OBSERVING)
    return Action(Kind.WAIT, cursor, 'abort requested', wake_in=at.policy.retry, abort_job=running)


HANDLERS = {stimulus.Due: on_due, stimulus.Checked: on_checked, stimulus.Finished: on_finished, stimulus.Alive: on_alive,
            stimulus.Unknown: on_unknown, stimulus.Silent: on_silent, stimulus.Refused: on_refused,
            stimulus.Observed: on_observed, stimulus.Abort: on_abort, stimulus.Recover: on_recover}
