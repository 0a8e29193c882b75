"""The turns that a workflow can take: on to the next operation, round to undo, to its end, to a question, to a rest, past a debt. Pure.

`decide` says when which is taken; what the table says is looked up here and there, never repeated.
"""
import dataclasses

from migrator.conductor.cursor import AbortCause, Action, Cursor, Direction, Kind, Phase, Policy
from migrator.conductor.workflows.conditions import against
from migrator.conductor.workflows.model import Step, Workflow
from migrator.states import Status

replace = dataclasses.replace


@dataclasses.dataclass(frozen=True)
class Situation:
    """Everything that a decision may look at. known: what the steps have returned, by name, and `options`, what was asked for."""

    workflow: Workflow
    cursor: Cursor
    policy: Policy
    now: int
    known: dict

    @property
    def step(self) -> Step:
        """The table's line for the current step, also while it is being undone."""
        return self.workflow.step(self.cursor.step)

    @property
    def undoing(self):
        """True on the way back."""
        return self.cursor.direction is Direction.UNDO

    @property
    def moved(self):
        """Name the step that may have moved the guest or the volume, whose truth the hosts tell; '' if none has begun."""
        return next((step.name for step in self.workflow.operations if step.asks and step.name in self.cursor.begun), '')

    def backoff(self, failures):
        """Seconds until the next try, doubled with each failure, at most the poll interval."""
        return min(self.policy.retry * 2 ** max(0, failures - 1), max(self.policy.poll, self.policy.retry))

    def lost(self, cursor):
        """True when the host that is waited for has been silent for too long."""
        return bool(cursor.silent_since) and self.now - cursor.silent_since >= self.policy.lost_after * 1000


def start(at: Situation, cursor: Cursor, name: str, reason: str, **extra) -> Action:
    """Issue an operation: a step, or the undo of one. A new attempt is a new operation."""
    step = at.workflow.step(name)
    again = cursor.step == name
    undo = cursor.direction is Direction.UNDO
    keep_attention = again and cursor.status is Status.NEEDS_OPERATOR
    status = cursor.status if keep_attention else Status.UNDOING if undo else step.status
    deadline = cursor.deadline
    if step.observe and not undo:
        deadline = at.now + int(at.policy.completion * 1000) if at.policy.completion else 0
    new = replace(cursor, step=name, phase=Phase.OPERATION, status=status, attempt=cursor.attempt + 1 if again else 1,
                  failures=cursor.failures if again else 0, silent_since=cursor.silent_since if again else 0,
                  begun=cursor.begun if undo or name in cursor.begun else (*cursor.begun, name), deadline=deadline)
    words = (step.undo if undo else step).doing or name
    return Action(Kind.START, new, f'{reason}; {words}' if reason else words, wake_in=at.policy.claim, **extra)


def advance(at: Situation, cursor: Cursor, reason: str, **extra) -> Action:
    """The current step is done: go on to the next one in the present direction, or end."""
    cursor = replace(cursor, failures=0, silent_since=0)
    if at.undoing:
        return next_undo(at, cursor, reason, **extra)
    if cursor.abort and not cursor.no_return and at.workflow.abortable:
        return begin_undo(at, cursor, abort_words(cursor), **extra)
    return go_on(at, cursor, cursor.step, reason, **extra)


def go_on(at: Situation, cursor: Cursor, name: str, reason: str, **extra) -> Action:
    """Start the first operation after the one named ('' before the first) whose condition holds, or end."""
    told = [reason] if reason else []
    for step in at.workflow.after(name):
        why = against(step.when, {**at.known, 'moved': cursor.no_return})
        if not why:
            return start(at, cursor, step.name, '; '.join(told), **extra)
        if step.outcomes and not cursor.no_return:
            told.append(f'{step.name} is left out: {why}')
    return end(cursor, Status.COMPLETED, reason or at.workflow.done or 'done', **extra)


def begin_undo(at: Situation, cursor: Cursor, error: str, **extra) -> Action:
    """Turn round: undo what may have begun, in the table's order. After the point of no return this must never be asked for."""
    if cursor.no_return:
        raise AssertionError(f'undo after the point of no return: {cursor}')
    cursor = replace(cursor, direction=Direction.UNDO, error=cursor.error or error, step='', attempt=0, failures=0, silent_since=0)
    return next_undo(at, cursor, error, **extra)


def undos(at: Situation, cursor: Cursor) -> list[str]:
    """Name the undos of what may have begun, in the table's order."""
    return [u for u in at.workflow.undo_order if any(s.name in cursor.begun for s in at.workflow.undone_by(u))]


def next_undo(at: Situation, cursor: Cursor, reason: str, **extra) -> Action:
    """Start the undo after cursor.step ('' before the first), or end."""
    due = undos(at, cursor)
    rest = due[due.index(cursor.step) + 1:] if cursor.step in due else due
    if rest:
        return start(at, cursor, rest[0], reason, **extra)
    status = Status.CANCELLED if cursor.abort is AbortCause.USER else Status.FAILED
    return end(cursor, status, cursor.error or reason, **extra)


def end(cursor: Cursor, status: Status, reason: str, **extra) -> Action:
    """The workflow has ended; locks and places go."""
    return Action(Kind.END, replace(cursor, status=status, phase=Phase.ENDED), reason, **extra)


def observe(at: Situation, cursor: Cursor, reason: str) -> Action:
    """Ask every host what is true, now."""
    return Action(Kind.OBSERVE, replace(cursor, phase=Phase.OBSERVING), reason, wake_in=at.policy.claim)


def rest(at: Situation, cursor: Cursor, reason: str) -> Action:
    """Something went wrong that may be better next time: try the step again later."""
    failures = cursor.failures + 1
    return Action(Kind.WAIT, replace(cursor, phase=Phase.RESTING, failures=failures), reason, wake_in=at.backoff(failures))


def owe(at: Situation, cursor: Cursor, why: str, **extra) -> Action:
    """The current step cannot be done now: its host owes it, and the workflow goes on."""
    return advance(at, cursor, f'{cursor.step} is left for later, as a debt: {why}', debts=(cursor.step,), owing=why, **extra)


def lost(at: Situation, cursor: Cursor, why: str) -> Action:
    """Both hosts are off: end it, and issue nothing to either, for what may be done there is known only when they are back.

    All that may have to be undone is owed, each undo after the one before it: whether the guest may go on at the source, only the
    destination can say, by letting what was prepared there be cleared.
    """
    return end(replace(cursor, error=why), Status.FAILED, why, debts=tuple(undos(at, cursor)), owing=why, in_turn=True, guest_lost=True)


def abort_words(cursor: Cursor) -> str:
    """Say why it is being aborted."""
    return 'aborted on request' if cursor.abort is AbortCause.USER else 'it took longer than its time limit and was aborted'


def without_step(cursor: Cursor) -> Cursor:
    """The current step has changed nothing: its undo would at best do nothing, and must not get the chance to do more."""
    return replace(cursor, begun=tuple(name for name in cursor.begun if name != cursor.step))
