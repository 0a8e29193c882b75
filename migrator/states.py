"""Every word for a state, in one place.

Standard library only: pure modules, drivers, the wire contract and the database all import this and nothing else for states.
The values are what users see and what is stored, so a value is never changed, only added.
"""
import enum


class Status(enum.StrEnum):
    """Where a migration stands. The one status enum of the project (design, section 2)."""

    QUEUED = 'queued'
    CHECKING = 'checking'
    PREPARING = 'preparing'
    RUNNING = 'running'
    POST_COPY = 'post_copy'
    WAITING = 'waiting'
    FINISHING = 'finishing'
    UNDOING = 'undoing'
    NEEDS_OPERATOR = 'needs_operator'
    COMPLETED = 'completed'
    FAILED = 'failed'
    CANCELLED = 'cancelled'

    @property
    def terminal(self):
        """True when nothing more will happen and no lock is held."""
        return self in TERMINAL


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class GuestState(enum.StrEnum):
    """What one host says of one guest. No answer is UNREACHABLE, never ABSENT."""

    RUNNING = 'running'
    PAUSED = 'paused'
    INCOMING = 'incoming'        # being received by a migration; has never run on this host
    OFF = 'off'                  # defined, not running
    ABSENT = 'absent'            # the host answered: it knows no such guest
    UNREACHABLE = 'unreachable'  # no answer; says nothing about the guest
    DEAD = 'dead'                # no answer, and somebody attested that the host is off: nothing runs there


class PauseReason(enum.StrEnum):
    """Why a guest is paused; empty when it is not."""

    NONE = ''
    USER = 'user'
    MIGRATION = 'migration'            # stopped by the hypervisor for a hand-over, in either direction
    POST_COPY = 'post_copy'            # its pages are served to the destination
    POST_COPY_FAILED = 'post_copy_failed'
    IO_ERROR = 'io_error'
    OTHER = 'other'


class LunState(enum.StrEnum):
    """What an array says of one LUN."""

    ABSENT = 'absent'
    MAKING = 'making'            # recorded, its file is not proven to be whole
    READY = 'ready'
    MIRRORING = 'mirroring'      # served here, while its data is still on its way from another array


class AgentKind(enum.StrEnum):
    """What kind of agent: each has a topic of its own, and a host has at most one of each."""

    COMPUTE = 'compute'
    VOLUME = 'volume'


class Resource(enum.StrEnum):
    """What a workflow is about."""

    INSTANCE = 'instance'
    VOLUME = 'volume'


class VolumeState(enum.StrEnum):
    """What the catalogue says of a volume."""

    CREATING = 'creating'
    AVAILABLE = 'available'
    ATTACHING = 'attaching'
    IN_USE = 'in-use'
    DETACHING = 'detaching'
    EXTENDING = 'extending'
    DELETING = 'deleting'
    ERROR = 'error'


class VolumeMigration(enum.StrEnum):
    """How the last migration of a volume stands, by the words of seed 001."""

    NONE = 'none'
    MIGRATING = 'migrating'
    ATTACHABLE = 'migrating_attachable'  # the new array is in charge and still fetches data; may be attached, read and written
    SUCCESS = 'success'
    ERROR = 'error'


class AttachmentState(enum.StrEnum):
    """How a volume and a guest that belong together stand."""

    ATTACHING = 'attaching'
    ATTACHED = 'attached'
    DETACHING = 'detaching'


class OperationState(enum.StrEnum):
    """What an agent's journal says of one operation."""

    RUNNING = 'running'
    SUCCEEDED = 'succeeded'
    FAILED = 'failed'
    INTERRUPTED = 'interrupted'  # the agent died while it ran; nobody knows how far it came
    UNKNOWN = 'unknown'          # the journal has no such operation

    @property
    def finished(self):
        """True when the agent will do nothing more for this operation."""
        return self in (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.INTERRUPTED)


class InstanceState(enum.StrEnum):
    """What the catalogue says of a guest."""

    BUILDING = 'building'
    RUNNING = 'running'
    PAUSED = 'paused'
    STOPPED = 'stopped'
    UNKNOWN = 'unknown'  # its host no longer lists it; the row stays, a missing report proves nothing
