"""The contract of a volume driver: what the agent asks of an array.

A driver is named in setup.cfg under the entry point `migrator.volume.drivers`; each backend of an agent is one configuration group
with its own driver object. Its methods block; the agent runs each in a native thread, several at once, so they must be
thread-safe. They know nothing of workflows, of RPC or of the database, and nothing of volumes' public ids beyond the name of the LUN
that they are given: names are decided and recorded by the conductor before anything is made. Every method that changes something is
idempotent: the conductor repeats a step whose answer it lost, and the second run must find the first one's work, finish what is
missing and succeed. A driver checks the precondition of a destructive act at the moment of acting, raises PreconditionFailed otherwise,
and then has changed nothing. **A driver never deletes a migration's source**: the conductor asks for that, last.

Errors are the classes of `migrator.exceptions`: DriverError in words for what the array refused, LunNotFound, PreconditionFailed,
NoSpace, InvalidRequest. Anything else is a defect of the driver. A method that declines returns `moved` False and has changed
nothing; one that raises has not declined, and what is true then is asked with `observe`. Sizes and offsets are bytes.
"""
import abc

from migrator.rpc import volume_facts as facts


class VolumeDriver(abc.ABC):
    """One array (backend), with one or more pools."""

    #: Options of a backend's group that only this driver has, besides migrator.config.BACKEND_OPTS.
    options = ()

    #: What the array can do, shown by `migrator backend show`: in words that do not change.
    capabilities: tuple[str, ...] = ()

    #: Directory of the agent's host for what the driver must know again after a restart, set before `start`; '' is none.
    state_path = ''

    def __init__(self, conf, host, backend):
        """Keep `conf` (the backend's own group of an oslo.config ConfigOpts), `host` (migrator's name of the agent's host) and
        `backend` (the group's name); no I/O."""
        self.conf = conf
        self.host = host
        self.backend = backend

    @property
    def credentials(self):
        """Directory of x509 files with which exports are reached that want TLS; '' is none."""
        return getattr(self.conf, 'tls_credentials', '')

    @abc.abstractmethod
    def start(self):
        """Connect; bring back what the array forgot in a restart of its own (exports, mirrors). Raises DriverError in words when the
        array cannot be reached; the agent then reports the backend offline and tries again."""

    @abc.abstractmethod
    def stop(self):
        """Let go of connections; exports, mirrors and the array itself go on."""

    # --- what is there (no side effects) ---

    @abc.abstractmethod
    def pools(self) -> tuple[facts.Pool, ...]:
        """Describe the pools with their room; called at every heartbeat, so cheap. DriverError when the array does not answer."""

    @abc.abstractmethod
    def list(self) -> tuple[facts.Lun, ...]:
        """List every LUN of every pool, made by us or found; for `audit` and for adoption."""

    @abc.abstractmethod
    def show(self, pool: str, lun: str) -> facts.Lun:
        """Tell what is true of one LUN now, from the array, never from memory: absent, being written by a copy, whole, mirrored from
        a remote, its exports and their users. An unknown name gives state ABSENT. DriverError when the array does not answer."""

    # --- life of a LUN ---

    @abc.abstractmethod
    def create(self, pool: str, lun: str, size: int, owner: str) -> dict:
        """Make a LUN that reads as zeros throughout. owner: the id of the workflow, kept with the LUN as a mark.

        Returns the locator, a dict that identifies the LUN to this driver. A LUN of that name, owner and size is success.
        NameTaken if another owner made it; NoSpace; on any error nothing is left.
        """

    @abc.abstractmethod
    def delete(self, pool: str, lun: str, owner: str = '') -> dict:
        """Remove a LUN. Absent is success. owner: only if this workflow made it ('' is any).
        PreconditionFailed while an export of it is in use, a job works on it, or another LUN is mirrored from it."""

    @abc.abstractmethod
    def extend(self, pool: str, lun: str, size: int) -> dict:
        """Grow a LUN, exported or not; that size already is success, smaller is InvalidRequest. What is new reads as zeros."""

    @abc.abstractmethod
    def export(self, pool: str, lun: str, export: str, writable: bool) -> facts.Connection:
        """Make a LUN reachable under the name `export`, durably: it is there again after a restart of the array. An export of that name
        and mode is success; a read-only one never becomes writable by repetition (PreconditionFailed)."""

    @abc.abstractmethod
    def unexport(self, pool: str, lun: str, export: str, force: bool = False) -> dict:
        """End an export; durable before it returns, so that a restarted array does not serve it again. Absent is success.
        PreconditionFailed while somebody is connected, unless `force`."""

    # --- migration (seed 001; names are the contract) ---

    def migrate_volume(self, lun: facts.Lun, target: facts.Target) -> tuple[bool, dict]:
        """Seed 001, step 1: as the *source* array, move the LUN to `target` by the array's own means.

        Returns (moved, model_update): model_update has the new `locator`. Declining is (False, {}). The default declines.
        """
        return False, {}

    def migrate_volume_target(self, lun: facts.Lun, connection: facts.Connection, target: facts.Target) -> tuple[bool, bool, dict]:
        """Seed 001, step 2: as the *target* array, take over the source's LUN that is exported at `connection`.

        Returns (moved, migration_async, model_update). With migration_async the LUN can be exported by this array, read and written
        from the moment of return, while the data is still on its way; writes reach both arrays until
        `complete_migration_target` has returned. Declining is (False, False, {}). The default declines.
        """
        return False, False, {}

    def interrupt(self, migration_id: str) -> None:
        """Have a migrate_volume or migrate_volume_target of this migration, which waits for data, give up soon: it raises MigrationAborted,
        and what it has made stays for the undo. Never blocks. One that has all data may return as if nothing were; a completion is never
        interrupted. The default lets them go on.
        """
        return

    def set_mirror_rate(self, pool: str, lun: str, bytes_per_second: int) -> bool:
        """Limit the mirror into this LUN, also one that is begun again after a restart; 0 is no limit. What clients write is not held back.

        Returns whether it is mirrored and the array can do that. A Target brings the limit as it is when the take-over is begun, and when
        its completion is asked for. The default cannot.
        """
        return False

    def complete_migration_target(self, target: facts.Target) -> dict:
        """Seed 001, step 4: wait until an asynchronous take-over is complete, switch to the local copy, and make that durable.

        Returns only when no byte is needed from the source any more. Repeated after a restart of the agent or of the array:
        goes on. Raises DriverError if it cannot be completed now; then both LUNs are kept, and this array stays in charge.
        """
        raise NotImplementedError(f'{type(self).__name__} takes over no volumes')

    def cancel_migration_target(self, target: facts.Target) -> dict:
        """Undo a take-over that was not committed: end the mirror, remove the local LUN. PreconditionFailed once it was exported to
        anybody, for its writes are then wanted. Nothing there is success. The default has nothing to undo."""
        return {}

    def progress(self, pool: str, lun: str) -> facts.Progress:
        """Tell how far a mirror or a copy into this LUN is; an empty Progress when there is none or it cannot be told. Never raises."""
        return facts.Progress()

    def copier(self, command):
        """Begin what copies or compares instead of the program in `command` (a list of words), where this array's exports cannot be
        reached by NBD: a simulated one. Returns what has the methods of volume.child.Child, or None where the program can."""
        return
