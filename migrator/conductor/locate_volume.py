"""Where is the volume? The table that turns what both arrays say of it into a verdict, as `locate` does for guests. Pure.

It is asked before the new location is committed, when a driver raised, stayed silent or was interrupted for good. So far nobody was told
of the target's LUN, and nobody writes to the source's: as long as the source has it whole, that is the volume, whatever there is at the
target. Only where the source says that it has it no more, and the target that it has it whole, has it moved; that is how an array
moves a volume between its own pools. A LUN of the target that has been given to somebody contradicts both, and needs a person.

An agent that does not answer, or whose array does not, is UNREACHABLE, which is no evidence of absence. It is DEAD if somebody has attested
that its host is off: then nothing works there now, but what lies in the array nobody knows.
"""
import dataclasses
import enum

from migrator.conductor.locate import Finding, Verdict
from migrator.states import LunState


class Said(enum.StrEnum):
    """What one array says of its LUN."""

    ABSENT = 'absent'
    PARTIAL = 'partial'          # its file is not proven to be whole
    MIRRORED = 'mirrored'        # served there, while its data is still fetched from another array
    COMPLETE = 'complete'        # whole by itself; if it was made for a copy, that says nothing about what is in it
    UNREACHABLE = 'unreachable'
    DEAD = 'dead'


#: How an array's words are called here.
SAID = {LunState.ABSENT: Said.ABSENT, LunState.MAKING: Said.PARTIAL, LunState.MIRRORING: Said.MIRRORED, LunState.READY: Said.COMPLETE}


@dataclasses.dataclass(frozen=True)
class Answer:
    """One side's answer. in_use: it is exported to others than this migration, so that somebody has it in charge. job_active: an operation
    of the migration is at work there. locator: how the array's driver knows the LUN."""

    state: Said = Said.UNREACHABLE
    in_use: bool = False
    job_active: bool = False
    locator: dict = dataclasses.field(default_factory=dict, compare=False)


UNREACHABLE, DEAD = Answer(), Answer(Said.DEAD)


def read(location, own):
    """Turn a volume_facts.VolumeLocation into an Answer. own: the names of the migration's own exports, which are nobody else's."""
    lun = location.lun
    if lun is None:
        return dataclasses.replace(UNREACHABLE, job_active=location.job_active)
    return Answer(SAID[lun.state], any(e.name not in own for e in lun.exports), location.job_active, lun.locator)


def describe(answer: Answer) -> str:
    """Say one answer in words, such as `complete, in use, at work`."""
    return answer.state.value + (', in use' if answer.in_use else '') + (', at work' if answer.job_active else '')


def find(source: Answer, destination: Answer) -> Finding:
    """Decide where the volume is from what both arrays answered, the source first."""
    verdict, why = _decide(source, destination)
    return Finding(verdict, f'{why} (source: {describe(source)}; destination: {describe(destination)})')


def _decide(source, destination):
    s, d = source.state, destination.state
    if source.job_active or destination.job_active:
        return Verdict.IN_PROGRESS, 'an operation of the migration is at work'
    if destination.in_use and s is not Said.ABSENT:
        return Verdict.UNRESOLVED, 'the LUN at the destination is in use, and nobody was to be told of it yet'
    match s:
        case Said.COMPLETE:
            return Verdict.AT_SOURCE, 'the source has the whole volume, and nobody was told of the destination'
        case Said.ABSENT:
            return _left_the_source(d)
        case Said.UNREACHABLE:
            return Verdict.SILENT, 'the source array does not answer'
        case Said.DEAD:
            return _source_is_off(d)
    return Verdict.UNRESOLVED, 'the LUN at the source is not whole'


def _left_the_source(d):
    if d is Said.COMPLETE:
        return Verdict.AT_DESTINATION, 'the source has let go of the volume, and the destination has it whole'
    if d is Said.UNREACHABLE:
        return Verdict.SILENT, 'the source has let go of the volume, and the destination does not answer'
    return Verdict.UNRESOLVED, 'no array has the whole volume'


def _source_is_off(d):
    if d in (Said.ABSENT, Said.PARTIAL, Said.MIRRORED):
        return Verdict.AT_SOURCE, 'the volume is at the source, whose host is off; the destination has not got all of it'
    if d is Said.UNREACHABLE:
        return Verdict.SILENT, 'the source is off, and the destination does not answer'
    return Verdict.UNRESOLVED, 'the source is off, and whether the volume has moved cannot be told'
