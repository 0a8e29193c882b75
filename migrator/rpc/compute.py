"""What the conductor asks of compute agents: one method for each entry of the contract, dataclasses in and out."""
from migrator.rpc import contract, facts, traces
from migrator.rpc.questions import AgentAPI


class ComputeAPI(AgentAPI):
    """Client of the compute agents.

    Version history:

    * 1.0 - live migration: its eight methods, instances, locate_instance, get_operation, abort, force_complete, audit.
    * 1.1 - volumes: attach_volume, detach_volume.

    Every method takes the request's context and the host that is meant. All raise `errors.NoAnswer` (it may have arrived),
    `errors.NotDelivered` (it has not), and what the agent answers with: AgentError and its subclasses, InvalidRequest. Those that take an
    envelope return the agent's acknowledgement at once, a Report with the operation's state; doing the work takes as long as it takes,
    and the outcome comes as `operation_finished`. They may be repeated with the same envelope: an operation begins once.
    """

    def __init__(self, conf, transport, lowest=str):
        """lowest: gives the highest version that all live agents understand, '' for any; a pinned [upgrade_levels] compute is stronger."""
        super().__init__(transport, contract.TOPIC_COMPUTE, contract.COMPUTE, contract.COMPUTE_VERSION, conf.upgrade_levels.compute, lowest)

    def check_can_live_migrate_destination(self, context, host, guest):
        """Ask what `host` offers to `guest` (facts.Guest). Returns DestinationFacts. No side effects."""
        return self._ask(facts.DestinationFacts, context, host, 'check_can_live_migrate_destination', guest=facts.to_wire(guest))

    def check_can_live_migrate_source(self, context, host, guest):
        """Ask what `guest` (facts.Guest) is and needs. Returns SourceFacts; InstanceNotFound if it is not there. No side effects."""
        return self._ask(facts.SourceFacts, context, host, 'check_can_live_migrate_source', guest=facts.to_wire(guest))

    def locate_instance(self, context, host, instance_uuid, migration_id, epoch):
        """Ask what `host` knows of a guest at this moment. Returns Location; DriverError if its hypervisor cannot be asked.

        The answer is also a fence: a request of that migration that was sent under an older epoch and comes later is refused, so
        that what was seen cannot be undone by a message that was still under way.
        """
        return self._ask(facts.Location, context, host, 'locate_instance', instance_uuid=instance_uuid, migration_id=migration_id,
                         epoch=epoch)

    def get_operation(self, context, host, op_id):
        """Ask for the state of an operation. Returns Report, with state `unknown` if the agent never heard of it."""
        return self._ask(facts.Report, context, host, 'get_operation', op_id=op_id)

    def abort_live_migration(self, context, host, migration_id, instance_uuid):
        """Cancel the outgoing job, and forbid one that has not begun. Returns True if a job was told to stop. Repeatable."""
        return self._yes(context, host, 'abort_live_migration', migration_id=migration_id, instance_uuid=instance_uuid)

    def force_complete_live_migration(self, context, host, migration_id, instance_uuid):
        """Make a running job converge. Returns True if a job ran. Repeatable."""
        return self._yes(context, host, 'force_complete_live_migration', migration_id=migration_id, instance_uuid=instance_uuid)

    def audit(self, context, host, marker=''):
        """Ask what is on `host`. Returns a traces.Part; its `more`, if it is not '', is the marker of the next one. No side effects."""
        return self._ask(traces.Part, context, host, 'audit', marker=marker)

    def pre_live_migration(self, context, host, envelope, plan):
        """Have the destination prepared. Returns the acknowledgement; the outcome's result is `prepared` for live_migration."""
        return self._start(context, host, 'pre_live_migration', envelope, plan=facts.to_wire(plan))

    def live_migration(self, context, host, envelope, plan, prepared):
        """Have the hypervisor's call made at the source. The outcome's result has the job's statistics and `location`."""
        return self._start(context, host, 'live_migration', envelope, plan=facts.to_wire(plan), prepared=prepared)

    def post_live_migration_at_source(self, context, host, envelope, plan):
        """Have what is left at the source removed. PreconditionFailed, in the outcome, if the guest still runs there."""
        return self._start(context, host, 'post_live_migration_at_source', envelope, plan=facts.to_wire(plan))

    def post_live_migration_at_destination(self, context, host, envelope, plan):
        """Have the arrived guest made permanent. The outcome's result has `location`."""
        return self._start(context, host, 'post_live_migration_at_destination', envelope, plan=facts.to_wire(plan))

    def rollback_live_migration_at_source(self, context, host, envelope, plan):
        """Make sure that the guest goes on at the source."""
        return self._start(context, host, 'rollback_live_migration_at_source', envelope, plan=facts.to_wire(plan))

    def rollback_live_migration_at_destination(self, context, host, envelope, plan):
        """Have removed what was prepared at the destination."""
        return self._start(context, host, 'rollback_live_migration_at_destination', envelope, plan=facts.to_wire(plan))

    def create_instance(self, context, host, envelope, spec):
        """Have the disks made and the guest of `spec` (facts.InstanceSpec) defined."""
        return self._start(context, host, 'create_instance', envelope, spec=facts.to_wire(spec))

    def start_instance(self, context, host, envelope, instance_uuid):
        """Have a defined guest started."""
        return self._start(context, host, 'start_instance', envelope, instance_uuid=instance_uuid)

    def stop_instance(self, context, host, envelope, instance_uuid, timeout):
        """Have a guest shut down; after `timeout` seconds (0: at once) its power is cut."""
        return self._start(context, host, 'stop_instance', envelope, instance_uuid=instance_uuid, timeout=timeout)

    def delete_instance(self, context, host, envelope, instance_uuid):
        """Have a stopped guest and its disks removed."""
        return self._start(context, host, 'delete_instance', envelope, instance_uuid=instance_uuid)

    def attach_volume(self, context, host, envelope, attachment):
        """Have a guest given a volume as a disk (volume_facts.Attachment with a connection), now and at its later starts.

        The outcome's result has the `target` that the disk got. UnsupportedVersion if an agent is older than 1.1; nothing is sent then.
        """
        return self._start(context, host, 'attach_volume', envelope, attachment=facts.to_wire(attachment))

    def detach_volume(self, context, host, envelope, attachment):
        """Have a volume (volume_facts.Attachment) taken from a guest. Once it has succeeded nothing on `host` has the export open.

        In the outcome: DeviceInUse if the guest keeps the disk, which may be tried again. UnsupportedVersion as above.
        """
        return self._start(context, host, 'detach_volume', envelope, attachment=facts.to_wire(attachment))
