"""The values about arrays and volumes that cross the wire; written and read by `facts.to_wire` and `facts.from_wire`. Sizes are bytes."""
import dataclasses
import re

from migrator import exceptions
from migrator.rpc import facts
from migrator.rpc.facts import MAX_BYTES
from migrator.states import LunState

#: A backend, a pool, a type, a LUN, an export: names that become parts of files and URIs, so nothing but these characters.
BACKEND = re.compile(r'[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?\Z')
LUN = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,126}\Z')
EXPORT_URI = re.compile(r'nbds?://[A-Za-z0-9.\[\]:-]{1,255}(:[0-9]{1,5})?/[A-Za-z0-9._-]{1,127}\Z')
OPTIONAL_UUID = re.compile(rf'\Z|{facts.UUID.pattern}')
OPTIONAL_LUN = re.compile(rf'\Z|{LUN.pattern}')
#: LUNs are made of whole sectors of this size.
SECTOR = 512


@dataclasses.dataclass(frozen=True)
class Pool:
    """Where LUNs are made: a part of an array with room of its own. free: what new data may take now."""

    name: str = facts._field(BACKEND)
    total: int = facts._field(None, 0, MAX_BYTES, default=0)
    free: int = facts._field(None, 0, MAX_BYTES, default=0)


@dataclasses.dataclass(frozen=True)
class Backend:
    """One array as its agent's heartbeat tells of it. offline: why it does not answer, in words; '' is online."""

    name: str = facts._field(BACKEND)
    driver: str = ''
    offline: str = ''
    types: tuple[str, ...] = ()                       # volume types that it serves
    capabilities: tuple[str, ...] = ()
    array_id: str = ''                                # the array's own identity: two agents that name the same one share it
    pools: tuple[Pool, ...] = ()


@dataclasses.dataclass(frozen=True)
class Connection:
    """How a LUN is reached by a client. Secrets never travel: TLS credentials are files at each end, named by configuration."""

    uri: str = facts._field(EXPORT_URI)
    writable: bool = False
    size: int = facts._field(None, 0, MAX_BYTES, default=0)
    tls: bool = False


@dataclasses.dataclass(frozen=True)
class Export:
    """One export of a LUN as the array tells of it. clients: how many are connected, -1 when the array cannot say."""

    name: str = facts._field(LUN)
    writable: bool = False
    clients: int = facts._field(None, -1, 2 ** 20, default=-1)


@dataclasses.dataclass(frozen=True)
class Lun:
    """What an array says of one LUN at this moment (`show`): the evidence that recovery decides from."""

    pool: str = facts._field(BACKEND)
    name: str = facts._field(LUN)
    state: LunState = LunState.ABSENT
    size: int = facts._field(None, 0, MAX_BYTES, default=0)
    allocated: int = facts._field(None, 0, MAX_BYTES, default=0)
    format: str = ''                                  # raw | qcow2
    owner: str = facts._field(OPTIONAL_UUID, default='')   # the workflow that made it
    snapshots: int = facts._field(None, 0, 2 ** 20, default=0)
    exports: tuple[Export, ...] = ()
    mirror: str = ''                                  # URI of the remote that it is mirrored from, '' is none
    locator: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a volume is to go: decided and recorded by the conductor before anything is made."""

    migration_id: str = facts._field(facts.UUID)
    volume_id: str = facts._field(facts.UUID)
    host: str = facts._field(facts.HOST)
    backend: str = facts._field(BACKEND)
    pool: str = facts._field(BACKEND)
    lun: str = facts._field(LUN)
    size: int = facts._field(None, 0, MAX_BYTES, default=0)
    array_id: str = ''

    def verify(self):
        """A LUN is made of whole sectors; raises InvalidRequest."""
        if self.size % SECTOR:
            raise exceptions.InvalidRequest(f'Target.size: {self.size} is no multiple of {SECTOR}')


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a mirror or a copy is, best effort: it never decides an outcome. total: bytes to be moved; rate: bytes a second."""

    active: bool = False
    total: int = facts._field(None, 0, MAX_BYTES, default=0)
    done: int = facts._field(None, 0, MAX_BYTES, default=0)
    rate: int = facts._field(None, 0, MAX_BYTES, default=0)
    ready: bool = False
