"""The libvirt driver: the contract's methods, each handed to the part that does it, over one connection.

Methods run in native threads, several at once. What there is to say is in results and errors; only what comes after them is logged
(`lasting`).
"""
import contextlib

from migrator import exceptions
from migrator.compute import driver
from migrator.compute.drivers.libvirt import connection, folders, guests, lasting, migration, observe, stalls, storage, volumes
from migrator.rpc import facts, traces, volume_facts


class LibvirtDriver(driver.ComputeDriver):
    """QEMU guests of one libvirtd. Options: [libvirt], and of [compute] instances_path, extra_disk_paths, availability_zone."""

    def __init__(self, conf, host):
        super().__init__(conf, host)
        self._connection = connection.Connection(conf.libvirt.connection_uri)
        self._storage = storage.Storage(conf.compute.instances_path, conf.compute.extra_disk_paths, conf.state_path, host)
        own = folders.Folders(self._storage)
        self._observer = observe.Observer(conf, self._connection, self._storage)
        self._guests = guests.Guests(conf, self._storage, own, self._observer)
        self._volumes = volumes.Volumes(conf.compute.detach_timeout, host, self._observer)
        self._stalls = stalls.Stalls(self._observer)
        self._migration = migration.Migration(self._storage, own, self._observer)

    def start(self):
        """See ComputeDriver.start."""
        with _words():
            self._storage.start()
            self._connection.open()
            self._connection.run(self._observer.static)

    def stop(self):
        """See ComputeDriver.stop."""
        self._connection.close()

    def host_facts(self) -> facts.Host:
        """See ComputeDriver.host_facts."""
        return self._run(self._observer.host_facts)

    def inventory(self) -> tuple[facts.Guest, ...]:
        """See ComputeDriver.inventory. The size of a disk that cannot be read is 0; the check at the source says why."""
        return self._run(self._observer.inventory)

    def locate(self, instance_uuid: str) -> facts.Location:
        """See ComputeDriver.locate."""
        return self._run(self._observer.locate, instance_uuid)

    def audit(self) -> tuple[traces.Trace, ...]:
        """See ComputeDriver.audit."""
        return self._run(self._observer.domain_traces) + self._run(lambda _connection: self._storage.traces())

    def progress(self, instance_uuid: str) -> facts.Job:
        """See ComputeDriver.progress."""
        try:
            return self._run(self._observer.progress, instance_uuid)
        except Exception:  # noqa: BLE001 - whatever it is, progress never decides an outcome and must not disturb the one who asks
            return facts.Job()

    def check_can_live_migrate_destination(self, guest: facts.Guest) -> facts.DestinationFacts:
        """See ComputeDriver.check_can_live_migrate_destination."""
        return self._run(self._observer.check_destination, guest)

    def check_can_live_migrate_source(self, guest: facts.Guest) -> facts.SourceFacts:
        """See ComputeDriver.check_can_live_migrate_source."""
        return self._run(self._observer.check_source, guest)

    def pre_live_migration(self, plan: facts.Plan) -> dict:
        """See ComputeDriver.pre_live_migration. A note in state_path tells from now on that the guest is expected here."""
        return self._run(self._migration.prepare, plan)

    def live_migration(self, plan: facts.Plan, prepared: dict) -> dict:
        """See ComputeDriver.live_migration. The job goes on in libvirtd when this process ends; the call is never repeated."""
        call = lasting.LastingCall(self.host, plan.connection_uri, lambda: self._copies(plan.instance_uuid))
        with _words():
            return call.run(self._connection.run_apart, self._migration.migrate, plan, prepared, call)

    def _copies(self, instance_uuid):
        job = self.progress(instance_uuid)
        return bool(job.memory_total or job.disk_total)

    def abort_live_migration(self, instance_uuid: str) -> bool:
        """See ComputeDriver.abort_live_migration."""
        return self._run(self._migration.abort, instance_uuid)

    def force_complete_live_migration(self, instance_uuid: str) -> bool:
        """See ComputeDriver.force_complete_live_migration."""
        return self._run(self._migration.force_complete, instance_uuid)

    def post_live_migration_at_destination(self, plan: facts.Plan) -> dict:
        """See ComputeDriver.post_live_migration_at_destination."""
        return self._run(self._migration.finish_at_destination, plan)

    def post_live_migration_at_source(self, plan: facts.Plan) -> dict:
        """See ComputeDriver.post_live_migration_at_source. The result's `left` says in words what stays, and why."""
        return self._run(self._migration.finish_at_source, plan)

    def rollback_live_migration_at_source(self, plan: facts.Plan) -> dict:
        """See ComputeDriver.rollback_live_migration_at_source."""
        return self._run(self._migration.undo_at_source, plan)

    def rollback_live_migration_at_destination(self, plan: facts.Plan) -> dict:
        """See ComputeDriver.rollback_live_migration_at_destination. The result's `left` says in words what stays, and why."""
        return self._run(self._migration.undo_at_destination, plan)

    def create_instance(self, spec: facts.InstanceSpec) -> dict:
        """See ComputeDriver.create_instance. The result has the `name` that the guest got; a taken one is made unique."""
        return self._run(self._guests.create, spec)

    def start_instance(self, instance_uuid: str) -> dict:
        """See ComputeDriver.start_instance."""
        return self._run(self._guests.start, instance_uuid)

    def stop_instance(self, instance_uuid: str, timeout: int) -> dict:
        """See ComputeDriver.stop_instance. The result's `cut` tells whether the power had to be cut."""
        return self._run(self._guests.stop, instance_uuid, timeout)

    def delete_instance(self, instance_uuid: str) -> dict:
        """See ComputeDriver.delete_instance. The result's `left` says in words what stays, and why."""
        return self._run(self._guests.delete, instance_uuid)

    def attach_volume(self, attachment: volume_facts.Attachment) -> dict:
        """See ComputeDriver.attach_volume."""
        return self._run(self._volumes.attach, attachment)

    def detach_volume(self, attachment: volume_facts.Attachment) -> dict:
        """See ComputeDriver.detach_volume."""
        return self._run(self._volumes.detach, attachment)

    def stalled(self) -> tuple[str, ...]:
        """See ComputeDriver.stalled."""
        return self._run(self._stalls.stalled)

    def resume_stalled(self, instance_uuid: str) -> str:
        """See ComputeDriver.resume_stalled."""
        return self._run(self._stalls.resume, instance_uuid)

    def _run(self, function, *args):
        with _words():
            return self._connection.run(function, *args)


@contextlib.contextmanager
def _words():
    """The contract knows no OSError: a disk that is full or gone is told in words."""
    try:
        yield
    except OSError as error:
        raise exceptions.DriverError(f'{error.strerror or error}{f": {error.filename}" if error.filename else ""}') from error
