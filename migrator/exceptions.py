"""Typed errors that callers may see by name, over RPC and on the command line.

Each class carries one readable sentence. `oslo.messaging` rebuilds them at the caller from module, name and message, so every
class takes exactly one positional argument: the sentence.
"""


class MigratorError(Exception):
    """Base of every error that is meant for a caller."""

    exit_code = 1

    def __init__(self, message=''):
        super().__init__(message or (type(self).__doc__ or '').splitlines()[0])

    @property
    def kind(self):
        """The error's name without the suffix that oslo.messaging adds to rebuilt errors."""
        return type(self).__name__.removesuffix('_Remote')


class InvalidRequest(MigratorError):
    """A request is malformed or of the wrong type; nothing was changed."""

    exit_code = 2


class PayloadTooLarge(InvalidRequest):
    """A request is larger than the limit; nothing was changed."""


class NotFound(MigratorError):
    """What was named does not exist."""

    exit_code = 3


class InstanceNotFound(NotFound):
    """No such instance."""


class VolumeNotFound(NotFound):
    """No such volume."""


class BackendNotFound(NotFound):
    """No such backend or pool of storage."""


class LunNotFound(NotFound):
    """The array has no such LUN."""


class HostNotFound(NotFound):
    """No such host."""


class MigrationNotFound(NotFound):
    """No such migration."""


class DebtNotFound(NotFound):
    """There is no such debt."""


class Conflict(MigratorError):
    """The request cannot be done in the present state; nothing was changed."""

    exit_code = 4


class SchemaMismatch(Conflict):
    """The database has another schema than this code needs."""


class SameHost(Conflict):
    """Source and destination are the same host."""


class HostDown(Conflict):
    """The host has not been heard of lately."""


class HostUp(Conflict):
    """The host is still heard of."""


class HostDoubled(Conflict):
    """Two agents on two machines call themselves by the name of this host."""


class HostDisabled(Conflict):
    """The host is disabled for new work."""


class InstanceNotRunning(Conflict):
    """The instance is not running."""


class InstanceRunning(Conflict):
    """The instance is running."""


class InstanceExists(Conflict):
    """An instance of that identity exists already."""


class VolumeExists(Conflict):
    """A volume of that name exists already."""


class VolumeInUse(Conflict):
    """The volume is attached."""


class VolumeNotUsable(Conflict):
    """The volume is not in a state in which that can be done."""


class SameBackend(Conflict):
    """The volume is at that backend already, and no other of its pools was named."""


class BackendOffline(Conflict):
    """The storage does not answer its agent."""


class NoRoom(Conflict):
    """The pool has too little space for it."""


class ResourceLocked(Conflict):
    """Another workflow holds the resource."""


class AlreadyMigrating(ResourceLocked):
    """The instance is being migrated already."""


class DebtOutstanding(Conflict):
    """A cleanup that names the instance has not been done yet."""


class TooLate(Conflict):
    """The migration passed its point of no return, or has ended."""


class WrongHost(Conflict):
    """A report does not come from the host that the operation was sent to."""


class SeenElsewhere(Conflict):
    """A host tells of the instance that is not the one where the catalogue has it."""


class NotPossible(Conflict):
    """What was asked makes no sense in the migration's present state."""


class MigrationRefused(Conflict):
    """Source and destination do not fit each other for this guest."""


class AgentError(MigratorError):
    """An agent refused a request, or failed in doing it."""

    exit_code = 5


class AgentBusy(AgentError):
    """The agent has no room for another operation."""


class StaleEpoch(AgentError):
    """The agent has seen a newer epoch of this migration; the sender is outdated."""


class RequestExpired(AgentError):
    """The request reached the agent after its not_after."""


class WrongProcess(AgentError):
    """The request was addressed to another process of this agent."""


class AgentDraining(AgentError):
    """The agent is stopping and takes no new work."""


class JournalError(AgentError):
    """The agent cannot write its journal, and does nothing that it could not remember."""


class PreconditionFailed(AgentError):
    """The world is not as a destructive request requires; nothing was done."""


class DriverError(AgentError):
    """The hypervisor or storage refused or failed."""


class DestinationNotEmpty(PreconditionFailed):
    """The destination already has files or a domain of this guest that this migration did not make."""


class NameTaken(PreconditionFailed):
    """A LUN of that name is there already and was made by somebody else; nothing was done."""


class NoSpace(DriverError):
    """There is not enough room for it; nothing is left of the attempt."""


class DeviceInUse(DriverError):
    """The guest does not let go of a device; it keeps it, and nothing was forced."""


class MigrationAborted(AgentError):
    """The hypervisor's migration job was aborted on request."""


class Unavailable(MigratorError):
    """No conductor answered, or the broker or database cannot be reached."""

    exit_code = 6


class InternalError(MigratorError):
    """A service failed by a defect of its own; its log has the details."""
