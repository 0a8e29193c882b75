"""What of a host's guests goes into which message, so that none is larger than a conductor takes. Pure.

A full list that is too large goes in parts. Each is complete for one range of uuids, and the ranges leave no gap: whoever hears a part
knows what is absent within its range and nothing beyond it, and need not remember the other parts.
"""
import dataclasses
import json

from migrator import exceptions
from migrator.rpc import facts

#: Largest list in one message, in bytes of JSON: half of what a conductor takes, so that there is room for the rest of the message.
PART_BYTES = 1 << 19

#: What one uuid takes, with its quotes and the comma.
NAME_BYTES = 40


@dataclasses.dataclass(frozen=True)
class Sized:
    """A guest with the bytes that it takes in a message. why: what is wrong with it, in words, if only its uuid can be told."""

    guest: facts.Guest
    size: int = NAME_BYTES
    why: str = ''


@dataclasses.dataclass(frozen=True)
class Part:
    """A list of guests, complete for uuids above `above`, up to and with `upto`; '' is no bound. named: are there, without details."""

    guests: tuple
    named: tuple
    above: str = ''
    upto: str = ''

    @property
    def whole(self):
        """True if it is all that there is, with all details."""
        return not (self.named or self.above or self.upto)


def sized(guest, room=PART_BYTES):
    """Measure a guest as it is sent, and find out whether a conductor would read it. room: bytes that one may have at most."""
    data = facts.to_wire(guest)
    try:
        facts.from_wire(facts.Guest, data, 'guest')
    except exceptions.InvalidRequest as error:
        return Sized(guest, why=str(error))
    size = len(json.dumps(data, ensure_ascii=False).encode()) + 2
    return Sized(guest, size) if size <= room else Sized(guest, why=f'its description has {size} bytes, the limit is {room}')


def split(found, room=PART_BYTES):
    """Give the Parts that list all of `found`, Sized guests with valid uuids, with at most `room` bytes of guests in each."""
    heaps, used = [[]], 0
    for one in sorted(found, key=lambda one: one.guest.uuid):
        if heaps[-1] and used + one.size > room:
            heaps.append([])
            used = 0
        heaps[-1].append(one)
        used += one.size
    bounds = ['', *(heap[-1].guest.uuid for heap in heaps[:-1]), '']
    return [Part(*told(heap), above, upto) for heap, above, upto in zip(heaps, bounds, bounds[1:], strict=False)]


def told(found):
    """Divide Sized guests into those that are described, and the uuids of those that are only named."""
    return tuple(one.guest for one in found if not one.why), tuple(one.guest.uuid for one in found if one.why)
