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
VERIFICATION = re.compile(r'(sampled|full)\Z')
OPTIONAL_TARGET = re.compile(rf'\Z|{facts.TARGET.pattern}')
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
class Attachment:
    """A volume as a disk of one guest: what the guest's host is told to connect (`attach_volume`) or to let go of (`detach_volume`).

    connection: of the export; None only where the volume is detached and nobody knows it any more.
    """

    id: str = facts._field(facts.UUID)
    volume_id: str = facts._field(facts.UUID)
    instance_uuid: str = facts._field(facts.UUID)
    target: str = facts._field(OPTIONAL_TARGET, default='')   # vdb …; '' lets the host choose
    read_only: bool = False
    connection: Connection | None = None

    @property
    def serial(self):
        """By which the disk is found again at its host, and by the guest's users: the volume's id, which never changes."""
        return self.volume_id

    def verify(self):
        """What is written to must be writable; raises InvalidRequest."""
        if self.connection is not None and not self.read_only and not self.connection.writable:
            raise exceptions.InvalidRequest('Attachment.connection: it is read-only, and the disk is to be written to')


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
    """Where a volume is to go: decided and recorded by the conductor before anything is made. bandwidth: limit of a mirror, in bytes a
    second, as it is when the driver is asked; 0 is none."""

    migration_id: str = facts._field(facts.UUID)
    volume_id: str = facts._field(facts.UUID)
    host: str = facts._field(facts.HOST)
    backend: str = facts._field(BACKEND)
    pool: str = facts._field(BACKEND)
    lun: str = facts._field(LUN)
    size: int = facts._field(None, 0, MAX_BYTES, default=0)
    array_id: str = ''
    bandwidth: int = facts._field(None, 0, MAX_BYTES, default=0)

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


@dataclasses.dataclass(frozen=True)
class LunRef:
    """Where a LUN is: the agent's host, the backend there, its pool, and the LUN's name in it."""

    host: str = facts._field(facts.HOST)
    backend: str = facts._field(BACKEND)
    pool: str = facts._field(BACKEND)
    lun: str = facts._field(LUN)

    @property
    def place(self):
        """The pool as users see it: host@backend#pool."""
        return f'{self.host}@{self.backend}#{self.pool}'


@dataclasses.dataclass(frozen=True)
class VolumeSpec:
    """A LUN that `volume create` asks for; its owner is the workflow that makes it."""

    volume_id: str = facts._field(facts.UUID)
    lun: LunRef
    size: int = facts._field(None, SECTOR, MAX_BYTES, default=SECTOR)

    def verify(self):
        """A LUN is made of whole sectors; raises InvalidRequest."""
        if self.size % SECTOR:
            raise exceptions.InvalidRequest(f'VolumeSpec.size: {self.size} is no multiple of {SECTOR}')


@dataclasses.dataclass(frozen=True)
class VolumeAttachment:
    """What `export_attachment` and `unexport_attachment` are given: one LUN for one attachment. force: clients are cut off."""

    id: str = facts._field(facts.UUID)
    volume_id: str = facts._field(facts.UUID)
    lun: LunRef
    writable: bool = True
    force: bool = False

    @property
    def export(self):
        """The export's name, the same at every repetition."""
        return f'attachment-{self.id}'


@dataclasses.dataclass(frozen=True)
class VolumePlan:
    """What every step of one volume's migration is given: decided by the conductor, stored, and the same at each repetition.

    connection: of the source's export, once export_volume has said it. bandwidth: bytes a second, 0 is no limit.
    """

    migration_id: str = facts._field(facts.UUID)
    volume_id: str = facts._field(facts.UUID)
    source: LunRef
    target: Target
    size: int = facts._field(None, SECTOR, MAX_BYTES, default=SECTOR)
    connection: Connection | None = None
    force_host_copy: bool = False
    verification: str = facts._field(VERIFICATION, default='sampled')
    bandwidth: int = facts._field(None, 0, MAX_BYTES, default=0)

    @property
    def export(self):
        """Name of the source's export for this migration."""
        return f'migration-{self.migration_id}'

    @property
    def copy_export(self):
        """Name of the target's export while it is copied to: another one, for both pools may be of one array."""
        return f'copy-{self.migration_id}'

    def verify(self):
        """What no single field can tell; raises InvalidRequest."""
        if (self.target.migration_id, self.target.volume_id) != (self.migration_id, self.volume_id):
            raise exceptions.InvalidRequest('VolumePlan.target belongs to another migration or volume')
        if self.target.size < self.size:
            raise exceptions.InvalidRequest(f'VolumePlan.target has {self.target.size} bytes, the volume {self.size}')
        where = LunRef(self.target.host, self.target.backend, self.target.pool, self.target.lun)
        if where == self.source:
            raise exceptions.InvalidRequest('VolumePlan.target is the source')


@dataclasses.dataclass(frozen=True)
class VolumeTargetFacts:
    """`check_can_migrate_volume_target`: what the target offers. Gathered without side effects.

    offline: why the array does not answer, in words; then the rest is unknown. pool: None if there is no such pool. occupied: what
    stands under the target's name, in words; '' is good, and so is what this very migration made. tls: whether exports of other arrays that
    want TLS can be read from there.
    """

    driver: str = ''
    offline: str = ''
    types: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    array_id: str = ''
    pool: Pool | None = None
    occupied: str = ''
    tls: bool = False


@dataclasses.dataclass(frozen=True)
class VolumeSourceFacts:
    """`check_can_migrate_volume_source`: what the volume is at its array. Gathered without side effects.

    offline: why the array does not answer, in words; then `lun` is None. tls: whether the array's exports want TLS.
    """

    driver: str = ''
    offline: str = ''
    types: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    array_id: str = ''
    lun: Lun | None = None
    tls: bool = False


@dataclasses.dataclass(frozen=True)
class VolumeLocation:
    """What one agent says of one LUN at this moment (`locate_volume`), the evidence that recovery decides from.

    lun: as the array tells of it, state ABSENT when there is none; None when nobody answered, which says nothing about the LUN. An array
    that does not answer its agent is an error (DriverError). job_active: an operation of the migration that moves its data runs there.
    """

    lun: Lun | None = None
    job_active: bool = False
    process_id: str = facts._field(facts.PROCESS, default='')


@dataclasses.dataclass(frozen=True)
class VolumeHeartbeat:
    """A volume agent's sign of life: always everything that it has to say. `sequence` counts up from 1 within a process."""

    host: str = facts._field(facts.HOST)
    process_id: str = facts._field(facts.PROCESS, default='')
    host_boot_id: str = facts._field(facts.PROCESS, default='')
    sequence: int = facts._field(None, 0, 2 ** 62, default=0)
    monotonic: float = facts._field(None, 0.0, facts.MAX_CLOCK, default=0.0)    # the agent's clock when it was sent
    rpc_version: str = facts._field(facts.VERSION, default='')
    draining: bool = False
    looked: float = facts._field(None, 0.0, facts.MAX_CLOCK, default=0.0)       # the agent's clock when it began to look at its arrays
    backends: tuple[Backend, ...] = ()
    progress: dict = dataclasses.field(default_factory=dict)      # migration id -> Progress as a dict
    copies: tuple[str, ...] = ()                                  # migrations whose copy has a checkpoint here and does not run

    def verify(self):
        """What is stored by name, or looked for, has its bounds; raises InvalidRequest."""
        if len(self.copies) > facts.MAX_PROGRESS or not all(facts.UUID.match(migration) for migration in self.copies):
            raise exceptions.InvalidRequest(f'heartbeat.copies must be ids of migrations, {facts.MAX_PROGRESS} at most')
        if len(self.progress) > facts.MAX_PROGRESS:
            raise exceptions.InvalidRequest(f'heartbeat.progress has {len(self.progress)} entries, the limit is {facts.MAX_PROGRESS}')
        for migration, progress in self.progress.items():
            if not facts.UUID.match(migration):
                raise exceptions.InvalidRequest(f'heartbeat: {migration!r:.80} is no uuid')
            facts.from_wire(Progress, progress, f'heartbeat.progress[{migration}]')
        if len({backend.name for backend in self.backends}) != len(self.backends):
            raise exceptions.InvalidRequest('heartbeat: two backends have one name')
