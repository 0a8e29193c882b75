"""Where a workflow stands, and what is to be done next, as data. Pure."""
import dataclasses
import enum

from migrator.conductor.workflows.model import Commit
from migrator.states import Status

GIB = 1 << 30

#: Seconds by which a time may lie too far ahead before it is taken for one of a clock that was set back since.
SLACK = 60.0


class Phase(enum.StrEnum):
    """What the current step is waiting for. Every phase is a row with a time at which it is looked at again."""

    QUEUED = 'queued'          # for a free place at both hosts
    CALLING = 'calling'        # for the answers of the checks
    OPERATION = 'operation'    # for an agent to report
    RESTING = 'resting'        # for the time to try the step again
    OBSERVING = 'observing'    # for the hosts to say where the guest is
    ENDED = 'ended'


class Direction(enum.StrEnum):
    """Which way the workflow goes."""

    FORWARD = 'forward'
    UNDO = 'undo'


class AbortCause(enum.StrEnum):
    """Why a workflow is to end where it began, though no step failed."""

    NONE = ''
    USER = 'user'
    TIMEOUT = 'timeout'


@dataclasses.dataclass(frozen=True)
class Cursor:
    """Where a workflow stands. Times are milliseconds of the database's clock.

    step: name of the current step, or of the undo that is being done. attempt: counts the operations of that step from 1.
    failures: how often the step went wrong or unanswered in a row. silent_since: since when an answer is missing; 0: it is not.
    begun: steps that may have left traces. deadline: when a running migration is aborted; 0: never.
    error: why it is being undone or has failed; the first reason wins.
    """

    status: Status = Status.QUEUED
    phase: Phase = Phase.QUEUED
    step: str = ''
    direction: Direction = Direction.FORWARD
    attempt: int = 0
    failures: int = 0
    silent_since: int = 0
    begun: tuple[str, ...] = ()
    no_return: bool = False
    abort: AbortCause = AbortCause.NONE
    deadline: int = 0
    error: str = ''


class Kind(enum.StrEnum):
    """What the engine does after it has stored the new cursor."""

    ADMIT = 'admit'        # take a place at both hosts, or stay queued; then CALL or START as the table says
    CALL = 'call'          # issue the checks
    START = 'start'        # issue the operation of cursor.step
    POLL = 'poll'          # ask the agent for the current operation
    OBSERVE = 'observe'    # ask all hosts where the guest is
    WAIT = 'wait'          # nothing, until the next event or wake-up
    END = 'end'            # release locks and places
    IGNORE = 'ignore'      # the event is late or doubled; store nothing
    REFUSE = 'refuse'      # tell the caller why not; store nothing


@dataclasses.dataclass(frozen=True)
class Action:
    """The decision: what to do, the cursor to store, why, and when to look again.

    wake_in: seconds. commit: what the catalogue learns in the same transaction. guest_off: the guest was seen stopped.
    guest_lost: it went down with its host.
    debts: undo or step methods that could not be done and are owed from now on; owing: why. in_turn: each waits for the one before it.
    abort_job: the source is told to cancel the job.
    """

    kind: Kind
    cursor: Cursor
    reason: str = ''
    wake_in: float = 0.0
    commit: Commit = Commit.NOTHING
    guest_off: bool = False
    guest_lost: bool = False
    debts: tuple[str, ...] = ()
    owing: str = ''
    in_turn: bool = False
    abort_job: bool = False


@dataclasses.dataclass(frozen=True)
class Policy:
    """The numbers that decisions depend on, frozen into the migration when it is requested. Seconds, but for the attempts."""

    claim: float = 5.0
    poll: float = 30.0
    retry: float = 2.0
    observe: float = 2.0
    lost_after: float = 60.0
    step_attempts: int = 5
    copy_attempts: int = 5       # how often in a row a step may be interrupted that keeps what it did, without having come further
    queue: float = 5.0
    completion: float = 0.0      # for how long the hypervisor's migration may run; 0: without limit
    per_gib: float = 0.0         # what that is reckoned from: for each GiB of memory and of each disk that is copied, 2 GiB at least

    @classmethod
    def of(cls, settings, **more):
        """Take the numbers from the [conductor] group of the configuration."""
        return cls(claim=settings.claim_seconds, poll=settings.poll_interval, retry=settings.retry_interval,
                   observe=settings.observe_interval, lost_after=settings.host_lost_after, step_attempts=settings.step_attempts,
                   copy_attempts=settings.copy_attempts, **more)

    @property
    def horizon(self):
        """Seconds: no wait is longer. What lies further ahead was written when the database's clock had not yet been set back."""
        return max(self.claim, self.poll, self.retry, self.observe * 4, self.queue) + SLACK

    def limited(self, memory_mib, copied):
        """Reckon `completion` for a guest. copied: sizes in bytes of the disks that are copied; of all, as long as that is not known."""
        sizes = [memory_mib << 20, *copied]
        return dataclasses.replace(self, completion=self.per_gib * sum(max(2.0, size / GIB) for size in sizes))


def anchored(cursor: Cursor, now: int, policy: Policy) -> Cursor:
    """Bring times of a cursor that lie further ahead than they can to where they may be: the clock was set back since. Pure.

    A silence cannot begin in the future, and no time limit ends later than one that begins now.
    """
    if cursor.silent_since > now:
        cursor = dataclasses.replace(cursor, silent_since=now)
    latest = now + int(policy.completion * 1000)
    if policy.completion and cursor.deadline > latest:
        cursor = dataclasses.replace(cursor, deadline=latest)
    return cursor
