"""Where is the guest? The one table that turns what both hosts say into a verdict. Pure.

After anything uncertain each host concerned is asked (`locate_instance`), and nothing but these answers decides. The rules are
tried in order; each is one line of the operator's guide.

A host that did not answer is UNREACHABLE, which is no evidence of absence. It is DEAD if somebody has attested that
it is off: then nothing runs there now, but whether something has run there, and what lies on its disks, nobody knows.
"""
import dataclasses
import enum

from migrator.rpc.facts import Location
from migrator.states import GuestState as G
from migrator.states import PauseReason as P

#: How the reason of GONE_WITH_SOURCE begins, which is true only as long as the source is off.
WENT_DOWN = 'the guest went down with its host'


class Verdict(enum.StrEnum):
    """What the answers amount to."""

    AT_SOURCE = 'at_source'            # it lives at the source (running, paused by its user, or to be resumed): undo
    OFF_AT_SOURCE = 'off_at_source'    # it stopped at the source and never ran at the destination: undo, it stays off
    GONE_WITH_SOURCE = 'gone_with_source'  # the source is off, and it never ran at the destination: undo, it is off
    GONE_WITH_BOTH = 'gone_with_both'  # both are off: nothing runs, and where it ran last nobody knows: it ends, and is looked at later
    AT_DESTINATION = 'at_destination'  # it lives at the destination and cannot run at the source: only forward
    POST_COPY = 'post_copy'            # it runs at the destination and still needs the source: only forward, wait
    IN_PROGRESS = 'in_progress'        # a migration job is at work: wait
    SILENT = 'silent'                  # a host that must be heard does not answer: wait, then needs_operator
    UNRESOLVED = 'unresolved'          # the answers contradict each other: needs_operator


@dataclasses.dataclass(frozen=True)
class Finding:
    """A verdict with the reason that is shown to the operator."""

    verdict: Verdict
    reason: str


def lives(location: Location) -> bool:
    """True where the guest has run at the host that says so. INCOMING has not, nor what a migration left paused there."""
    return location.state == G.RUNNING or (location.state == G.PAUSED and location.reason != P.MIGRATION)


def describe(location: Location) -> str:
    """Say one answer in words, such as `paused (migration), job active`."""
    text = location.state.value
    if location.reason:
        text += f' ({location.reason.value})'
    return text + (', job active' if location.job_active else '')


def find(source: Location, destination: Location) -> Finding:
    """Decide where the guest is from what both hosts answered at about the same time."""
    verdict, why = _decide(source, destination)
    return Finding(verdict, f'{why} (source: {describe(source)}; destination: {describe(destination)})')


def _decide(source, destination):
    s, d = source.state, destination.state
    if P.POST_COPY_FAILED in (source.reason, destination.reason):
        return Verdict.UNRESOLVED, 'post-copy broke off; the guest needs both hosts'
    if P.POST_COPY in (source.reason, destination.reason):
        if G.DEAD in (s, d):
            return Verdict.UNRESOLVED, 'post-copy was under way, and one of the two hosts is off'
        return Verdict.POST_COPY, 'post-copy is under way'
    if s == G.RUNNING:
        return _source_runs(source, destination)
    if lives(destination):
        return _destination_lives(source, destination)
    if source.job_active:
        return Verdict.IN_PROGRESS, 'the migration job is at work'
    if G.UNREACHABLE in (s, d):
        return Verdict.SILENT, 'a host that must be heard does not answer'
    if G.DEAD in (s, d):
        return _one_is_off(source, destination)
    return _neither_runs(source, destination)


def _source_runs(source, destination):
    if source.job_active:
        # The hosts are not asked at the same instant: the destination may have taken over between the two answers.
        return Verdict.IN_PROGRESS, 'the migration job is at work'
    if lives(destination):
        return Verdict.UNRESOLVED, 'the guest is reported alive at both hosts'
    return Verdict.AT_SOURCE, 'the guest runs at the source and no migration job is active'


def _destination_lives(source, destination):
    if source.job_active:
        return Verdict.IN_PROGRESS, 'the guest runs at the destination and the source is still finishing'
    if source.state == G.PAUSED and source.reason != P.MIGRATION:
        return Verdict.UNRESOLVED, 'the guest is paused at the source for another reason than the hand-over, and alive at the destination'
    if source.state == G.UNREACHABLE and destination.state != G.RUNNING:
        return Verdict.SILENT, 'the guest is not running at the destination and the source does not answer'
    return Verdict.AT_DESTINATION, 'the guest is proven at the destination'


def _one_is_off(source, destination):
    s, d = source.state, destination.state
    if s == d == G.DEAD:
        return Verdict.GONE_WITH_BOTH, 'both hosts are off; at which of the two the guest was last cannot be told before they are back'
    if s == G.DEAD and d in (G.ABSENT, G.INCOMING):
        return Verdict.GONE_WITH_SOURCE, f'{WENT_DOWN}; it has not run at the destination'
    if s == G.PAUSED and source.reason != P.MIGRATION:
        return Verdict.AT_SOURCE, 'the guest is paused at the source, and by no hand-over; the destination is off'
    # It may have run at the destination, or may be all that is left there: neither is resumed, made permanent or removed.
    return Verdict.UNRESOLVED, 'a host is off, and whether the guest has run at the destination cannot be told'


def _neither_runs(source, destination):
    s, d = source.state, destination.state
    if s == G.INCOMING:
        return Verdict.UNRESOLVED, 'the source says that it is receiving the guest'
    if s == G.PAUSED:
        if d in (G.ABSENT, G.INCOMING, G.PAUSED):     # paused there by MIGRATION: handed over, never resumed
            return Verdict.AT_SOURCE, 'the hand-over was not finished; the guest has not run at the destination'
        return Verdict.UNRESOLVED, 'the guest is paused at the source and defined at the destination'
    if s == G.OFF:
        if d in (G.ABSENT, G.INCOMING):
            return Verdict.OFF_AT_SOURCE, 'the guest stopped at the source and has not run at the destination'
        return Verdict.UNRESOLVED, 'the guest is off at the source and defined at the destination'
    if d == G.OFF and destination.persistent:
        # The source forgets a guest, and the destination defines it, only after the hand-over; it stopped after that.
        return Verdict.AT_DESTINATION, 'the guest was handed over and has stopped since'
    return Verdict.UNRESOLVED, 'the guest runs at neither host'
