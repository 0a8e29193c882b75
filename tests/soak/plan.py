"""What a soak will do and when, drawn from a seed. Pure: the same seed and rates give the same plan, whatever the machine does.

Faults and moves are drawn from streams of their own, so that another rate of one leaves the other as it was. Targets are numbers; the
stage takes them modulo what it has.
"""
import dataclasses
import random

#: Targets are numbers below this.
MANY = 1 << 16


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault. weight: how often, relative to the others. shortest, longest: seconds that it lasts. details: one is chosen."""

    weight: int
    shortest: float = 0.0
    longest: float = 0.0
    details: tuple[str, ...] = ('',)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault. at: seconds after the start. seconds: how long it lasts."""

    at: float
    kind: str
    target: int
    seconds: float
    detail: str = ''


@dataclasses.dataclass(frozen=True)
class Move:
    """One request for a migration. shift: how many hosts further the guest is to go, at least 1 once taken modulo.

    doubled: the request is made twice at once. abort_after: seconds until an abort is asked for, or None.
    """

    at: float
    number: int
    guest: int
    shift: int
    doubled: bool
    abort_after: float | None


METHODS = ('pre_live_migration', 'live_migration', 'post_live_migration_at_destination', 'post_live_migration_at_source',
           'check_can_live_migrate_source', 'check_can_live_migrate_destination', 'rollback_live_migration_at_destination')
ACTIONS = ('fail', 'fail-after', 'slow:3', 'die-before', 'die-after')

#: What is done to simulated hosts, and to real ones.
SIMULATED = {
    'kill agent': Kind(24, 0.2, 5), 'freeze agent': Kind(14, 0.5, 10),
    'kill conductor': Kind(12, 0.2, 5), 'freeze conductor': Kind(10, 0.5, 8),
    'driver failure': Kind(32, details=(*(f'{m} {a}' for m in METHODS for a in ACTIONS), 'live_migration die-during')),
    'restart broker': Kind(3, 0.5, 4), 'freeze broker': Kind(2, 0.5, 6),
    'restart database': Kind(4, 0.2, 3), 'freeze database': Kind(3, 0.5, 4)}
LAB = {
    'kill agent': Kind(22, 0.2, 5), 'freeze agent': Kind(12, 0.5, 10),
    'kill conductor': Kind(14, 0.2, 5), 'freeze conductor': Kind(10, 0.5, 8),
    'restart libvirtd': Kind(14, 0.2, 3), 'kill incoming emulator': Kind(14), 'cut off host': Kind(8, 2, 10),
    'restart broker': Kind(4, 0.5, 4), 'freeze broker': Kind(3, 0.5, 6),
    'restart database': Kind(4, 0.2, 3), 'freeze database': Kind(3, 0.5, 4)}


def moments(rng, seconds, per_minute, first):
    """Draw as many moments as the rate asks for, in order, none before `first` seconds."""
    count = max(1, round(seconds * per_minute / 60))
    return sorted(rng.uniform(min(first, seconds / 2), seconds) for _ in range(count))


def faults(seed, seconds, per_minute, kinds):
    """Draw the faults. kinds: {name: Kind}. Returns a tuple of Fault, in order."""
    rng = random.Random(f'{seed}/faults')
    names, found = sorted(kinds), []
    for at in moments(rng, seconds, per_minute, 5.0):
        name = rng.choices(names, [kinds[n].weight for n in names])[0]
        kind = kinds[name]
        lasts = round(rng.uniform(kind.shortest, kind.longest), 2)
        found.append(Fault(round(at, 3), name, rng.randrange(MANY), lasts, rng.choice(kind.details)))
    return tuple(found)


def moves(seed, seconds, per_minute, patience=8.0):
    """Draw the requests. patience: the longest time before an abort. Returns a tuple of Move, in order."""
    rng = random.Random(f'{seed}/moves')
    found = []
    for number, at in enumerate(moments(rng, seconds, per_minute, 0.0)):
        abort = round(rng.uniform(0, patience), 2)
        found.append(Move(round(at, 3), number, rng.randrange(MANY), rng.randrange(MANY), rng.random() < 0.15,
                          abort if rng.random() < 0.12 else None))
    return tuple(found)


def destination(hosts, here, shift):
    """Choose where a guest goes from `here`: another host, for every shift."""
    at = hosts.index(here)
    return hosts[(at + 1 + shift % (len(hosts) - 1)) % len(hosts)]
