"""The values that cross the wire, as frozen dataclasses, and the one way to read them.

Both ends import this module and nothing of each other. `from_wire` never trusts its input: unknown keys are dropped (a newer
peer may send more), missing keys take the default, and a value of the wrong type, shape or range raises InvalidRequest.
"""
import dataclasses
import enum
import math
import re
import types
import typing

from migrator import exceptions
from migrator.states import GuestState, OperationState, PauseReason

UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z')
OPTIONAL_UUID = re.compile(rf'\Z|{UUID.pattern}')
HOST = re.compile(r'[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z')
NAME = re.compile(r'[A-Za-z0-9]([A-Za-z0-9._ -]{0,126}[A-Za-z0-9._-])?\Z')
TARGET = re.compile(r'[a-z]{2,8}[0-9]{0,3}\Z')
PROCESS = re.compile(r'[\x21-\x7e]{0,36}\Z')
VERSION = re.compile(r'[0-9.]{0,16}\Z')
OP_ID = re.compile(r'[0-9a-f-]{36}/[a-z0-9_]{1,64}/[0-9]{1,6}\Z')
PATH = re.compile(r'(?!.*/\.\.?(?:/|\Z))(?!.*//)/[^\x00-\x1f]{1,1023}\Z')
OPTIONAL_PATH = re.compile(rf'\Z|{PATH.pattern}')
OPTIONAL_URI = re.compile(r'\Z|nbds?(\+unix)?://[^\x00-\x20]{1,1023}\Z')
FORMAT = re.compile(r'(qcow2|raw)\Z')
CMDLINE = re.compile(r'[^\x00-\x1f]{0,2047}\Z')
MAX_BYTES = 2 ** 60
#: What any whole number must fit into: a database's and JSON readers' 64 bits.
MAX_INT = 2 ** 63 - 1
#: Largest clock that is believed, in seconds: reckoning with it stays exact and fits a database.
MAX_CLOCK = 2.0 ** 40
#: How many migrations one heartbeat may tell of.
MAX_PROGRESS = 1000
#: How deep the free-form objects (results, progress, storage) may nest.
MAX_DEPTH = 16


def _field(pattern=None, low=None, high=None, **kwargs):
    """A dataclass field whose text must match `pattern`, or whose number must lie in [low, high]."""
    return dataclasses.field(metadata={'pattern': pattern, 'low': low, 'high': high}, **kwargs)


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk of a guest as its host sees it. Sizes are bytes of virtual size."""

    target: str = _field(TARGET)                      # vda, sdb …
    kind: str = 'file'                                # file | network (a volume: never copied) | block
    format: str = 'qcow2'                             # qcow2 | raw
    size: int = _field(None, 0, MAX_BYTES, default=0)
    directory: str = _field(OPTIONAL_PATH, default='')    # file: which configured storage directory it lies under
    path: str = ''                                    # file: absolute path; network: the export's URI
    backing: str = ''                                 # file: absolute path of the backing file, or ''
    backing_format: str = ''
    cache: str = ''                                   # libvirt's cache mode, '' is the default
    readonly: bool = False
    shareable: bool = False
    serial: str = ''                                  # a volume's id, when the disk is one


@dataclasses.dataclass(frozen=True)
class Guest:
    """One guest in a host's inventory. Memory in MiB."""

    uuid: str = _field(UUID)
    name: str = ''
    state: GuestState = GuestState.OFF
    memory_mib: int = _field(None, 0, 2 ** 31 - 1, default=0)
    vcpus: int = _field(None, 0, 4096, default=0)
    disks: tuple[Disk, ...] = ()
    managed: bool = False                             # made by `instance create`, not found
    boot_files: tuple[str, ...] = ()                  # kernel and initrd on the host; a destination must have them at the same path
    note: str = ''                                    # what its host has to say of it, in words: what it waits for, or waited for last


@dataclasses.dataclass(frozen=True)
class Host:
    """What an agent says of its host; static between restarts but for the free amounts. Memory in MiB."""

    hypervisor_name: str = ''                         # libvirt's own name for the host
    hypervisor_type: str = ''                         # QEMU, fake
    hypervisor_version: int = 0                       # libvirt's number: major * 1,000,000 + minor * 1,000 + release
    cpus: int = 0
    memory_mib: int = 0
    memory_free_mib: int = 0
    availability_zone: str = ''
    storage: dict = dataclasses.field(default_factory=dict)   # configured directory -> its permanent identity


@dataclasses.dataclass(frozen=True)
class Job:
    """A hypervisor's migration job, best effort: it never decides an outcome. Sizes in bytes, rates in bytes a second."""

    active: bool = False
    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0
    dirty_rate: int = 0
    iteration: int = 0
    downtime_ms: int = 0                              # expected while it runs; measured once it has completed
    elapsed_ms: int = 0


@dataclasses.dataclass(frozen=True)
class Location:
    """One host's answer to "what do you know of this guest?" (`locate_instance`), the evidence that recovery decides from."""

    state: GuestState = GuestState.UNREACHABLE
    reason: PauseReason = PauseReason.NONE
    job_active: bool = False                          # a migration job runs, in or out
    persistent: bool = False
    process_id: str = ''                              # which agent process said so


@dataclasses.dataclass(frozen=True)
class DestinationFacts:
    """`check_can_live_migrate_destination`: what the destination offers. Gathered without side effects."""

    hypervisor_type: str = ''
    hypervisor_version: int = 0
    arch: str = ''
    machines: tuple[str, ...] = ()                    # machine types that can be started, canonical names and aliases
    domain_types: tuple[str, ...] = ()                # kvm, qemu
    cpu_model: str = ''                               # the host's CPU
    cpu_models: tuple[str, ...] = ()                  # models that guests can be given here
    memory_free_mib: int = 0
    storage: dict = dataclasses.field(default_factory=dict)       # directory -> identity
    storage_free: dict = dataclasses.field(default_factory=dict)  # directory -> free bytes
    backing_found: tuple[str, ...] = ()               # of the instance's backing files, those that are there
    files_found: tuple[str, ...] = ()                 # the guest's disk files that are there: good if shared, else in the way
    boot_files_missing: tuple[str, ...] = ()          # of the guest's boot files, those that are not there
    volumes_silent: tuple[str, ...] = ()              # of the guest's volumes, those whose exports do not answer from here, in words
    occupied: str = ''                                # a domain of this uuid, or what else stands in the way, in words; '' is good
    migration_host: str = ''                          # address that takes the hypervisor's migration stream
    connection_uri: str = ''                          # what the source's hypervisor connects to
    listen_address: str = ''                          # graphics and consoles of the guest bind to this there


@dataclasses.dataclass(frozen=True)
class SourceFacts:
    """`check_can_live_migrate_source`: what the guest is and needs. Gathered without side effects."""

    state: GuestState = GuestState.ABSENT
    reason: PauseReason = PauseReason.NONE
    job_active: bool = False
    hypervisor_type: str = ''
    hypervisor_version: int = 0
    arch: str = ''
    machine: str = ''
    domain_type: str = ''
    cpu_mode: str = ''
    cpu_model: str = ''                               # the guest's model; for host-passthrough the host's
    memory_mib: int = 0
    disks: tuple[Disk, ...] = ()
    storage: dict = dataclasses.field(default_factory=dict)       # directory -> identity
    obstacles: tuple[str, ...] = ()                   # what forbids a live migration, in words (host devices, snapshots …)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What every step of one live migration is given: decided once by the conductor, stored, and the same at each repetition."""

    migration_id: str = _field(UUID)
    instance_uuid: str = _field(UUID)
    source_host: str = _field(HOST)
    destination_host: str = _field(HOST)
    connection_uri: str = ''
    migration_host: str = ''
    listen_address: str = ''
    disks: tuple[Disk, ...] = ()                      # all local file disks that are not read-only
    copy: tuple[str, ...] = ()                        # targets of those that must be copied; the rest is shared
    bandwidth_mib: int = _field(None, 0, 2 ** 30, default=0)      # MiB a second, 0 is unlimited
    memory_mib: int = 0

    def verify(self):
        """Files are made and removed by a plan, so a copied disk must lie where its directory says; raises InvalidRequest."""
        _distinct(self.disks)
        disks = {d.target: d for d in self.disks}
        for target in self.copy:
            disk = disks.get(target)
            if disk is None:
                raise exceptions.InvalidRequest(f'Plan.copy: {target!r:.80} is no disk of the plan')
            within = disk.directory and PATH.match(disk.path) and disk.path.startswith(disk.directory.rstrip('/') + '/')
            if disk.kind != 'file' or not within or not OPTIONAL_PATH.match(disk.backing):
                raise exceptions.InvalidRequest(f'Plan.disks: {disk.path!r:.80} of {target} is no file in {disk.directory!r:.80}')


@dataclasses.dataclass(frozen=True)
class NewDisk:
    """A disk that `instance create` is to make, or, with `uri`, a volume to connect. Size in bytes."""

    target: str = _field(TARGET)
    format: str = _field(FORMAT, default='qcow2')
    size: int = _field(None, 0, 2 ** 50, default=0)
    directory: str = _field(OPTIONAL_PATH, default='')    # '' is the agent's instances_path
    backing: str = _field(OPTIONAL_PATH, default='')  # an image in one of the agent's storage directories, or ''
    uri: str = _field(OPTIONAL_URI, default='')       # nbd://host:port/export
    serial: str = ''


@dataclasses.dataclass(frozen=True)
class InstanceSpec:
    """What `instance create` asks for."""

    uuid: str = _field(UUID)
    name: str = _field(NAME)
    memory_mib: int = _field(None, 16, 2 ** 24, default=128)
    vcpus: int = _field(None, 1, 512, default=1)
    kernel: str = _field(OPTIONAL_PATH, default='')   # absolute path on the host; '' boots from the first disk
    initrd: str = _field(OPTIONAL_PATH, default='')
    cmdline: str = _field(CMDLINE, default='')
    disks: tuple[NewDisk, ...] = ()

    def verify(self):
        """What no single field can tell; raises InvalidRequest."""
        _distinct(self.disks)


@dataclasses.dataclass(frozen=True)
class Envelope:
    """The head of every call-then-spawn request (design, section 3)."""

    op_id: str = _field(OP_ID)                        # owner/method/attempt; the owner is a migration's or a debt's id
    migration_id: str = _field(UUID)                  # whose epochs are compared
    epoch: int = _field(None, 0, 2 ** 62, default=0)
    process_id: str = ''                              # the agent process that is meant; '' is any
    not_after: float = 0.0                            # by the agent's own monotonic clock; 0 is no limit
    request_id: str = ''


@dataclasses.dataclass(frozen=True)
class Report:
    """State of an operation: the acknowledgement, the answer of `get_operation`, and what `operation_finished` carries."""

    op_id: str = _field(OP_ID)
    migration_id: str = _field(UUID)
    host: str = _field(HOST)
    process_id: str = _field(PROCESS, default='')
    host_boot_id: str = _field(PROCESS, default='')
    state: OperationState = OperationState.UNKNOWN
    result: dict = dataclasses.field(default_factory=dict)
    error_type: str = ''
    error: str = ''


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """One message per agent and interval. `sequence` counts up from 1 within a process; a gap makes the conductor ask for all."""

    host: str = _field(HOST)
    process_id: str = _field(PROCESS, default='')
    host_boot_id: str = _field(PROCESS, default='')
    sequence: int = _field(None, 0, 2 ** 62, default=0)
    monotonic: float = _field(None, 0.0, MAX_CLOCK, default=0.0)  # the agent's clock when it was sent
    rpc_version: str = _field(VERSION, default='')
    draining: bool = False
    facts: Host = dataclasses.field(default_factory=Host)
    looked: float = _field(None, 0.0, MAX_CLOCK, default=0.0)     # the agent's clock when it began to look at the guests
    full: bool = False                                # `guests` is everything; else only what changed, and `gone` what left
    guests: tuple[Guest, ...] = ()
    gone: tuple[str, ...] = ()
    progress: dict = dataclasses.field(default_factory=dict)      # migration id -> Job as a dict
    # A part of a list that is too large for one message, or lacks details. Who does not know these four takes it for what has changed.
    complete: bool = False                            # `guests` and `named` are everything within the range
    named: tuple[str, ...] = ()                       # uuids of guests that are there and cannot be described
    above: str = _field(OPTIONAL_UUID, default='')    # the range: uuids above this one, '' is no bound
    upto: str = _field(OPTIONAL_UUID, default='')     # … up to and with this one, '' is no bound

    def covers(self, uuid):
        """Whether the list would have this guest if it were there."""
        return self.full or (self.complete and self.above < uuid and (not self.upto or uuid <= self.upto))

    def verify(self):
        """What is stored by name or asked for in numbers has its bounds; raises InvalidRequest."""
        if len(self.progress) > MAX_PROGRESS:
            raise exceptions.InvalidRequest(f'heartbeat.progress has {len(self.progress)} entries, the limit is {MAX_PROGRESS}')
        for name in (*self.progress, *self.gone, *self.named):
            if not UUID.match(name):
                raise exceptions.InvalidRequest(f'heartbeat: {name!r:.80} is no uuid')
        for migration, job in self.progress.items():
            from_wire(Job, job, f'heartbeat.progress[{migration}]')


def to_wire(value):
    """Turn a dataclass into plain JSON types, all the way down."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_wire(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): to_wire(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_wire(v) for v in value]
    if isinstance(value, str):
        return readable(value)
    return value


def readable(text):
    """Replace what a peer or a database would refuse: a hypervisor's odd words must not keep a report from being heard."""
    return text.replace('\0', '\ufffd').encode('utf-8', 'replace').decode('utf-8')


def from_wire(cls, data, where=''):
    """Read `data` (a dict as it came over the wire) as `cls`; `where` names the value in errors. Raises InvalidRequest."""
    where = where or cls.__name__
    if not isinstance(data, dict):
        raise exceptions.InvalidRequest(f'{where} must be an object, not {type(data).__name__}')
    values = {}
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        name = f'{where}.{field.name}'
        if field.name in data:
            values[field.name] = _check(field, _convert(hints[field.name], data[field.name], name), name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise exceptions.InvalidRequest(f'{name} is missing')
    value = cls(**values)
    if hasattr(value, 'verify'):
        value.verify()
    return value


def check_names(cls, data, where):
    """Check that `data` has no key that `cls` lacks, nor have its parts. For what users write, where an unknown key is a slip of theirs.

    Raises InvalidRequest that names the keys. What else may be wrong is left to from_wire.
    """
    if not isinstance(data, dict):
        return
    hints = _hints(cls)
    unknown = [repr(key)[:60] for key in data if key not in hints]
    if unknown:
        raise exceptions.InvalidRequest(f'{where} has no {", ".join(unknown)[:200]}; it may have {", ".join(hints)}')
    for key, value in data.items():
        if isinstance(hints[key], types.GenericAlias) and isinstance(value, (list, tuple)):
            inner = typing.get_args(hints[key])[0]
            for number, item in enumerate(value):
                if dataclasses.is_dataclass(inner):
                    check_names(inner, item, f'{where}.{key}[{number}]')


def _distinct(disks):
    if len({d.target for d in disks}) != len(disks):
        raise exceptions.InvalidRequest(f'two disks have one target: {", ".join(d.target for d in disks):.200}')


_HINTS = {}


def _hints(cls):
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _convert(hint, value, where):
    if isinstance(hint, types.GenericAlias):          # tuple[X, ...] is the only one in use
        if not isinstance(value, (list, tuple)):
            raise exceptions.InvalidRequest(f'{where} must be a list, not {type(value).__name__}')
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, f'{where}[{i}]') for i, item in enumerate(value))
    if isinstance(hint, types.UnionType):             # X | None
        return None if value is None else _convert(next(h for h in typing.get_args(hint) if h is not types.NoneType), value, where)
    if dataclasses.is_dataclass(hint):
        return from_wire(hint, value, where)
    if issubclass(hint, enum.Enum):
        return _member(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(_plain(value, where))
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise exceptions.InvalidRequest(f'{where} must be {hint.__name__}, not {type(value).__name__}')
    return _plain(value, where)


def _member(hint, value, where):
    try:
        return hint(_plain(value, where) if isinstance(value, str) else None)
    except ValueError:
        shown = repr(value) if isinstance(value, str) else type(value).__name__
        raise exceptions.InvalidRequest(f'{where}: {shown:.60} is none of {", ".join(m.value for m in hint)}') from None


def _plain(value, where, depth=0):
    """Check that a value is plain JSON all the way down, and such as every peer and database takes; lists come back as lists."""
    if depth > MAX_DEPTH:
        raise exceptions.InvalidRequest(f'{where} is nested too deeply')
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value != readable(value):
            raise exceptions.InvalidRequest(f'{where} holds a character that cannot be stored')
        return value
    if isinstance(value, int):
        if not -MAX_INT <= value <= MAX_INT:
            raise exceptions.InvalidRequest(f'{where} is too large a number')
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise exceptions.InvalidRequest(f'{where} must be a finite number')
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, depth + 1) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise exceptions.InvalidRequest(f'{where} has a name that is not text')
        return {_plain(key, where): _plain(item, where, depth + 1) for key, item in value.items()}
    raise exceptions.InvalidRequest(f'{where} must be plain JSON, not {type(value).__name__}')


def _check(field, value, where):
    pattern, low, high = (field.metadata.get(k) for k in ('pattern', 'low', 'high'))
    if pattern is not None and not pattern.match(value):
        raise exceptions.InvalidRequest(f'{where}: {value!r:.80} is not allowed')
    if low is not None and not low <= value <= high:
        raise exceptions.InvalidRequest(f'{where}: {value} is not between {low} and {high}')
    return value
