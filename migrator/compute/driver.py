"""The contract of a compute driver: what the agent asks of a hypervisor.

A driver is named in setup.cfg under the entry point `migrator.compute.drivers` and chosen by `[compute] driver`. Its methods
block; the agent runs each in a native thread, several at once, so they must be thread-safe. They know nothing of workflows, of
RPC or of the database. Every method that changes something is idempotent: the conductor repeats a step whose answer it lost, and
the second run must find the first one's work, finish what is missing and succeed. A driver checks the precondition of a
destructive act at the moment of acting, raises PreconditionFailed otherwise, and then has changed nothing.

Errors are the classes of `migrator.exceptions`: DriverError in words for what the hypervisor refused, PreconditionFailed,
DestinationNotEmpty, DeviceInUse, InstanceNotFound, InvalidRequest. Anything else is a defect of the driver. Progress is best effort
and raises nothing. Units: memory in MiB, sizes in bytes, bandwidth in MiB a second.
"""
import abc

from migrator.rpc import facts, traces, volume_facts


class ComputeDriver(abc.ABC):
    """One hypervisor on one host."""

    def __init__(self, conf, host):
        """Keep `conf` (an oslo.config ConfigOpts with [compute] registered) and `host` (migrator's name of this host); no I/O."""
        self.conf = conf
        self.host = host

    @abc.abstractmethod
    def start(self):
        """Connect, make storage identity files where missing. Raises DriverError in words when the hypervisor cannot be reached."""

    @abc.abstractmethod
    def stop(self):
        """Let go of connections; guests and running migration jobs go on."""

    # --- what is there (no side effects) ---

    @abc.abstractmethod
    def host_facts(self) -> facts.Host:
        """Describe the host; called at every heartbeat, so cheap."""

    @abc.abstractmethod
    def inventory(self) -> tuple[facts.Guest, ...]:
        """List every guest that the hypervisor knows, running or not, made by us or found."""

    @abc.abstractmethod
    def locate(self, instance_uuid: str) -> facts.Location:
        """Tell what this host knows of one guest, from the hypervisor at this moment, never from memory.

        ABSENT only when the hypervisor said so; when it cannot be asked, raises DriverError. A guest that a migration is
        delivering and that has never run here is INCOMING, whether or not the job still exists.
        """

    @abc.abstractmethod
    def progress(self, instance_uuid: str) -> facts.Job:
        """Tell how far an outgoing migration is; an empty Job when there is none or it cannot be told. Never raises."""

    @abc.abstractmethod
    def check_can_live_migrate_destination(self, guest: facts.Guest) -> facts.DestinationFacts:
        """Say what this host offers to `guest` (its catalogue entry). Seed 000. Takes at most a second or two; no side effects."""

    @abc.abstractmethod
    def check_can_live_migrate_source(self, guest: facts.Guest) -> facts.SourceFacts:
        """Say what the guest is and needs. InstanceNotFound if it is not here. Seed 000. No side effects."""

    @abc.abstractmethod
    def audit(self) -> tuple[traces.Trace, ...]:
        """List all that is or may be of a guest or of a migration on this host: domains, active migration jobs, directories and files of
        guests with their markers, temporary files, notes. No side effects. Raises DriverError when something cannot be read: half an
        answer would hide a leftover."""

    # --- live migration (seed 000; names are the contract) ---

    @abc.abstractmethod
    def pre_live_migration(self, plan: facts.Plan) -> dict:
        """Prepare the destination: make the guest's directory and, for each disk in plan.copy, an empty disk of the right format,
        virtual size and backing. What is made carries a marker with plan.migration_id.

        Returns facts that `live_migration` is given as `prepared`. Raises DestinationNotEmpty if files or a domain of the guest
        are there that this migration did not make; then nothing is touched.
        """

    @abc.abstractmethod
    def live_migration(self, plan: facts.Plan, prepared: dict) -> dict:
        """Run the hypervisor's migration from this host; returns when its call has returned, or never will because the guest has ended.

        Returns statistics of the finished job: `downtime_ms`, `elapsed_ms`, `memory_processed`, `disk_processed`, `iteration`.
        Raises MigrationAborted after an abort and DriverError with the hypervisor's words; neither says where the guest is.
        """

    @abc.abstractmethod
    def abort_live_migration(self, instance_uuid: str) -> bool:
        """Cancel the outgoing job if there is one; True if a job was told to stop. Never cancels a post-copy job."""

    @abc.abstractmethod
    def force_complete_live_migration(self, instance_uuid: str) -> bool:
        """Pause the guest so that a running job converges; the hypervisor resumes it where it ends up. True if a job was running."""

    @abc.abstractmethod
    def post_live_migration_at_destination(self, plan: facts.Plan) -> dict:
        """Make the arrived guest permanent: persistent definition, marker removed. One that has stopped since is settled, too.
        PreconditionFailed if it is not here, or is still being received."""

    @abc.abstractmethod
    def post_live_migration_at_source(self, plan: facts.Plan) -> dict:
        """Remove what is left at the source: the definition, and the files of disks in plan.copy, then the empty directory.

        Called only after the guest was proven at the destination. Precondition, checked again here: no active domain of this
        uuid that runs (a domain left paused by the hand-over is destroyed), no job, and no process has the files open.
        Shared disks are never removed.
        """

    @abc.abstractmethod
    def rollback_live_migration_at_source(self, plan: facts.Plan) -> dict:
        """Make sure that the guest goes on here: resume it if the hand-over left it paused. A guest that is off stays off, one
        that a user paused stays paused. PreconditionFailed if it is not here at all."""

    @abc.abstractmethod
    def rollback_live_migration_at_destination(self, plan: facts.Plan) -> dict:
        """Remove what `pre_live_migration` made, and an incoming guest that never ran.

        Precondition: no domain of this uuid that has run here. Files are removed only under a marker of plan.migration_id.
        Nothing there to remove is success.
        """

    # --- instances ---

    @abc.abstractmethod
    def create_instance(self, spec: facts.InstanceSpec) -> dict:
        """Make the disks and define the guest, not started. Repeated with the same spec: success. DestinationNotEmpty if files of
        that uuid are there that an earlier creation did not make. InvalidRequest for a kernel or initrd that is in none of the directories
        of [compute] boot_file_paths, symbolic links followed."""

    @abc.abstractmethod
    def start_instance(self, instance_uuid: str) -> dict:
        """Start a defined guest; already running is success."""

    @abc.abstractmethod
    def stop_instance(self, instance_uuid: str, timeout: int) -> dict:
        """Shut the guest down: ask it, wait up to `timeout` seconds (0: do not ask), then cut its power. Off already is success.
        PreconditionFailed while a migration job runs."""

    @abc.abstractmethod
    def delete_instance(self, instance_uuid: str) -> dict:
        """Undefine a stopped guest and remove the disks that `create_instance` made. Absent already is success (leftover files of
        a half-done deletion are removed). PreconditionFailed if it is running."""

    # --- volumes (seed 001) ---

    @abc.abstractmethod
    def attach_volume(self, attachment: volume_facts.Attachment) -> dict:
        """Give the guest the volume as a disk: at once if it is active, and in its definition if it has one, so that it has the
        disk at its next start too. A guest that is off gets it in its definition only.

        The disk's serial is the volume's id, by which it is found again. An I/O error pauses the guest instead of reaching it; what it
        was writing is then tried again, nothing is lost. Returns `target`, the disk's name for the hypervisor (vdb …), chosen if the
        attachment names none. The volume there already by the same export: success, with the target that it has, whatever is asked for.
        What an interrupted call left undone is done.

        Raises InstanceNotFound; PreconditionFailed while a migration job of the guest runs, it is being received, or it is paused for
        a hand-over, if another disk has the target, or if the volume is there by another export or in another mode; DriverError if the
        export does not answer. Then nothing has changed.
        """

    @abc.abstractmethod
    def detach_volume(self, attachment: volume_facts.Attachment) -> dict:
        """Take the volume from the guest: from the active one first, which must let go of the disk, then from its definition.

        The disk is found by its serial alone, whatever its target and export. Not there: success. Returns once nothing here has the export
        open. Raises InstanceNotFound; PreconditionFailed as attach_volume does in a migration; DeviceInUse if the guest
        does not let go within the time that is configured: it then keeps the disk, now and in its definition; nothing is forced. Should
        it let go later by itself, the next call finds that and finishes.
        """

    @abc.abstractmethod
    def stalled(self) -> tuple[str, ...]:
        """Name, by uuid, the guests that an I/O error of a volume has paused and that no migration has in its hands.

        A guest that stands still because of a file disk (that is full) is none of them. Called every few seconds, so cheap. No side
        effects.
        """

    @abc.abstractmethod
    def resume_stalled(self, instance_uuid: str) -> str:
        """Let a guest of `stalled` go on if the exports of its volumes answer again; what it was writing is written then.

        Returns '' if it goes on, or does not stand still for that any more; else in words what it waits for. InstanceNotFound if it is not
        here. Repeatable at any time: a guest that was paused for any other reason is left alone.
        """
