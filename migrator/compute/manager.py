"""The compute agent's endpoint: every method of the contract, read from the wire, handed to the driver, answered in dataclasses.

The agent knows no workflow. It sees to four things of its own: the steps of one guest run one after another; what was overtaken while it
waited for its turn is not run; an abort is not lost when it comes before the job exists; and every call of the driver, which blocks,
runs in a native thread.
"""
import dataclasses
import threading
import time

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import contract, facts, server, volume_facts
from migrator.rpc.steps import StepEndpoint, run_driver, uuid_of

LOG = log.getLogger(__name__)

#: Seconds between two attempts to cancel a job that has not appeared yet.
ABORT_INTERVAL = 0.2


class ComputeManager(StepEndpoint):
    """RPC endpoint of a compute agent.

    driver: compute.driver.ComputeDriver. operations: rpc.agent.OperationServer. journal: rpc.journal.Journal. process_id: ours.
    """

    target = server.target(contract.COMPUTE_VERSION)

    def __init__(self, driver, operations, journal, process_id):
        super().__init__(operations, journal, process_id)
        self._driver = driver
        self._jobs_lock = threading.Lock()
        self._jobs = {}        # migration id -> instance uuid, while live_migration is in the driver
        self._aborting = set()  # migration ids whose job is being looked for, to cancel it

    # --- questions ---

    @server.exposed(contract.COMPUTE)
    def check_can_live_migrate_destination(self, context, guest):
        """Answer DestinationFacts for a guest of the catalogue."""
        return facts.to_wire(run_driver(self._driver.check_can_live_migrate_destination, facts.from_wire(facts.Guest, guest, 'guest')))

    @server.exposed(contract.COMPUTE)
    def check_can_live_migrate_source(self, context, guest):
        """Answer SourceFacts of a guest of the catalogue."""
        return facts.to_wire(run_driver(self._driver.check_can_live_migrate_source, facts.from_wire(facts.Guest, guest, 'guest')))

    @server.exposed(contract.COMPUTE)
    def locate_instance(self, context, instance_uuid, migration_id, epoch):
        """Answer Location, from the hypervisor at this moment, and refuse from now on what was sent under an older epoch.

        While live_migration is in the driver a job counts as active, whether or not the hypervisor shows it yet.
        """
        uuid_of(instance_uuid, 'instance_uuid')
        # The fence comes first: what is accepted before it is seen below, what comes after it is refused.
        self._fence(migration_id, epoch)
        begun = any(op_id.startswith(f'{migration_id}/') for op_id in self._operations.running('live_migration'))
        found = self._locate(instance_uuid)
        return found | {'job_active': True} if begun else found

    @server.exposed(contract.COMPUTE)
    def get_operation(self, context, op_id):
        """Answer Report from the journal."""
        return self._operation(op_id)

    @server.exposed(contract.COMPUTE)
    def audit(self, context, marker):
        """Answer a Part: traces after `marker`, in order; operations that run now with the first one."""
        return self._audit(marker, lambda: run_driver(self._driver.audit))

    # --- interventions ---

    @server.exposed(contract.COMPUTE)
    def abort_live_migration(self, context, migration_id, instance_uuid):
        """Cancel the job, and refuse it if it has not begun. Answers whether a job was told to stop now."""
        uuid_of(migration_id, 'migration_id')
        uuid_of(instance_uuid, 'instance_uuid')
        concurrency.run_native(self._journal.abort, migration_id)
        if self._another_runs(migration_id, instance_uuid):
            return False
        if run_driver(self._driver.abort_live_migration, instance_uuid):
            return True
        with self._jobs_lock:
            if migration_id in self._jobs and migration_id not in self._aborting:
                self._aborting.add(migration_id)
                concurrency.spawn(rpc_context.bind(self._abort_when_it_appears), migration_id, instance_uuid)
        return False

    def _abort_when_it_appears(self, migration_id, instance_uuid):
        """Cancel a job that the driver has begun to set up but that the hypervisor does not show yet."""
        try:
            while self._jobs.get(migration_id) == instance_uuid:
                time.sleep(ABORT_INTERVAL)
                if run_driver(self._driver.abort_live_migration, instance_uuid):
                    return
        except exceptions.MigratorError as error:
            LOG.warning('the job could not be cancelled: %s', error)
        finally:
            with self._jobs_lock:
                self._aborting.discard(migration_id)

    @server.exposed(contract.COMPUTE)
    def force_complete_live_migration(self, context, migration_id, instance_uuid):
        """Make the job converge. Answers whether one ran."""
        uuid_of(migration_id, 'migration_id')
        uuid_of(instance_uuid, 'instance_uuid')
        if self._another_runs(migration_id, instance_uuid):
            return False
        return run_driver(self._driver.force_complete_live_migration, instance_uuid)

    def _another_runs(self, migration_id, instance_uuid):
        """True if the guest's present job is another migration's: what was meant for an earlier one came late."""
        with self._jobs_lock:
            return any(known != migration_id and uuid == instance_uuid for known, uuid in self._jobs.items())

    # --- live migration ---

    @server.exposed(contract.COMPUTE)
    def pre_live_migration(self, context, envelope, plan):
        """Prepare the destination."""
        return self._start_step('pre_live_migration', envelope, plan)

    @server.exposed(contract.COMPUTE)
    def live_migration(self, context, envelope, plan, prepared):
        """Run the hypervisor's call; the result, of a failure too, has where the guest is at the source afterwards."""
        if not isinstance(prepared, dict):
            raise exceptions.InvalidRequest(f'prepared must be an object, not {type(prepared).__name__}')
        read = facts.from_wire(facts.Plan, plan, 'plan')
        return self._start('live_migration', envelope, {'plan': plan, 'prepared': prepared}, read.instance_uuid,
                           lambda: self._migrate(read, prepared))

    def _migrate(self, plan, prepared):
        with self._jobs_lock:
            self._jobs[plan.migration_id] = plan.instance_uuid
        try:
            # Entered above first: an abort from now on looks for the job, an earlier one is in the journal.
            if concurrency.run_native(self._journal.aborted, plan.migration_id):
                raise exceptions.MigrationAborted('aborted before it began')
            result = run_driver(self._driver.live_migration, plan, prepared)
        except exceptions.MigratorError as error:
            error.facts = {'location': self._locate_if_possible(plan.instance_uuid)}
            raise
        finally:
            with self._jobs_lock:
                del self._jobs[plan.migration_id]
        return result | {'location': self._locate_if_possible(plan.instance_uuid)}

    @server.exposed(contract.COMPUTE)
    def post_live_migration_at_source(self, context, envelope, plan):
        """Remove what is left at the source."""
        return self._start_step('post_live_migration_at_source', envelope, plan)

    @server.exposed(contract.COMPUTE)
    def post_live_migration_at_destination(self, context, envelope, plan):
        """Make the arrived guest permanent; the result has where it is."""
        read = facts.from_wire(facts.Plan, plan, 'plan')

        def settle():
            result = run_driver(self._driver.post_live_migration_at_destination, read) or {}
            return result | {'location': self._locate_if_possible(read.instance_uuid)}
        return self._start('post_live_migration_at_destination', envelope, {'plan': plan}, read.instance_uuid, settle)

    @server.exposed(contract.COMPUTE)
    def rollback_live_migration_at_source(self, context, envelope, plan):
        """Make sure that the guest goes on."""
        return self._start_step('rollback_live_migration_at_source', envelope, plan)

    @server.exposed(contract.COMPUTE)
    def rollback_live_migration_at_destination(self, context, envelope, plan):
        """Remove what was prepared."""
        return self._start_step('rollback_live_migration_at_destination', envelope, plan)

    # --- instances ---

    @server.exposed(contract.COMPUTE)
    def create_instance(self, context, envelope, spec):
        """Make disks and define the guest; the result has what the inventory says of it, so that it can be migrated at once."""
        read = facts.from_wire(facts.InstanceSpec, spec, 'spec')

        def create():
            result = run_driver(self._driver.create_instance, read) or {}
            for guest in run_driver(self._driver.inventory):
                if guest.uuid == read.uuid:
                    result = result | {'guest': facts.to_wire(guest)}
            return result
        return self._start('create_instance', envelope, {'spec': spec}, read.uuid, create)

    @server.exposed(contract.COMPUTE)
    def start_instance(self, context, envelope, instance_uuid):
        """Start the guest."""
        return self._start('start_instance', envelope, {'instance_uuid': instance_uuid}, uuid_of(instance_uuid, 'instance_uuid'),
                           lambda: run_driver(self._driver.start_instance, instance_uuid))

    @server.exposed(contract.COMPUTE)
    def stop_instance(self, context, envelope, instance_uuid, timeout):
        """Stop the guest."""
        if not isinstance(timeout, int) or isinstance(timeout, bool) or not 0 <= timeout <= 86400:
            raise exceptions.InvalidRequest(f'timeout must be whole seconds from 0 to 86400, not {timeout!r:.40}')
        return self._start('stop_instance', envelope, {'instance_uuid': instance_uuid, 'timeout': timeout},
                           uuid_of(instance_uuid, 'instance_uuid'), lambda: run_driver(self._driver.stop_instance, instance_uuid, timeout))

    @server.exposed(contract.COMPUTE)
    def delete_instance(self, context, envelope, instance_uuid):
        """Remove the guest and its disks."""
        return self._start('delete_instance', envelope, {'instance_uuid': instance_uuid}, uuid_of(instance_uuid, 'instance_uuid'),
                           lambda: run_driver(self._driver.delete_instance, instance_uuid))

    # --- volumes ---

    @server.exposed(contract.COMPUTE)
    def attach_volume(self, context, envelope, attachment):
        """Give the guest a volume as a disk."""
        read = facts.from_wire(volume_facts.Attachment, attachment, 'attachment')
        if read.connection is None:
            raise exceptions.InvalidRequest('attachment.connection is missing')
        return self._start('attach_volume', envelope, {'attachment': attachment}, read.instance_uuid,
                           lambda: run_driver(self._driver.attach_volume, read))

    @server.exposed(contract.COMPUTE)
    def detach_volume(self, context, envelope, attachment):
        """Take a volume from the guest."""
        read = facts.from_wire(volume_facts.Attachment, attachment, 'attachment')
        return self._start('detach_volume', envelope, {'attachment': attachment}, read.instance_uuid,
                           lambda: run_driver(self._driver.detach_volume, read))

    # --- for the heartbeat ---

    def jobs(self):
        """Give {migration id: instance uuid} of the live migrations that the driver runs now."""
        with self._jobs_lock:
            return dict(self._jobs)

    # --- for the end of the agent ---

    def handed_over(self):
        """True when the hypervisor is seen to run every live migration that was accepted here and has not ended.

        Until then the end of this process could keep one from ever beginning.
        """
        jobs = self.jobs()
        if any(op_id.split('/')[0] not in jobs for op_id in self._operations.running('live_migration')):
            return False        # it has not come to the driver, or has left it and is being written down
        try:
            return all(run_driver(self._driver.progress, instance_uuid).active for instance_uuid in jobs.values())
        except exceptions.MigratorError as error:
            LOG.warning('the hypervisor cannot say whether it migrates: %s', error)
            return False

    # --- inside ---

    def _start_step(self, name, envelope, plan):
        """Start a step that is one method of the driver with the plan as its argument."""
        read = facts.from_wire(facts.Plan, plan, 'plan')
        return self._start(name, envelope, {'plan': plan}, read.instance_uuid, lambda: run_driver(getattr(self._driver, name), read))

    def _locate(self, instance_uuid):
        return facts.to_wire(dataclasses.replace(run_driver(self._driver.locate, instance_uuid), process_id=self._process_id))

    def _locate_if_possible(self, instance_uuid):
        """Locate a guest at the end of an operation; UNREACHABLE, which says nothing, if the hypervisor cannot be asked."""
        try:
            return self._locate(instance_uuid)
        except exceptions.MigratorError as error:
            LOG.warning('the guest cannot be located: %s', error)
            return facts.to_wire(facts.Location(process_id=self._process_id))
