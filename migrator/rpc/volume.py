"""What the conductor asks of volume agents: one method for each entry of the contract, dataclasses in and out."""
from migrator.rpc import contract, facts, traces, volume_facts
from migrator.rpc.questions import AgentAPI


class VolumeAPI(AgentAPI):
    """Client of the volume agents.

    Version history:

    * 1.0 - the first release: volumes, seed 001's migration, the host copy, attachments, locate_volume, get_operation, audit.

    Every method takes the request's context and the host whose agent is meant. All raise `errors.NoAnswer` (it may have arrived),
    `errors.NotDelivered` (it has not), and what the agent answers with: AgentError and its subclasses, InvalidRequest. Those that take an
    envelope return the agent's acknowledgement at once, a Report with the operation's state; the outcome comes as `operation_finished`.
    They may be repeated with the same envelope: an operation begins once. `plan` is a volume_facts.VolumePlan; the steps at the source
    go to plan.source.host, those at the target to plan.target.host.
    """

    def __init__(self, conf, transport, lowest=str):
        """lowest: gives the highest version that all live agents understand, '' for any; a pinned [upgrade_levels] volume is stronger."""
        super().__init__(transport, contract.TOPIC_VOLUME, contract.VOLUME, contract.VOLUME_VERSION, conf.upgrade_levels.volume, lowest)

    # --- questions ---

    def check_can_migrate_volume_target(self, context, host, plan):
        """Ask what the target backend offers. Returns VolumeTargetFacts; InvalidRequest if there is no such backend. No side effects."""
        return self._ask(volume_facts.VolumeTargetFacts, context, host, 'check_can_migrate_volume_target', plan=facts.to_wire(plan))

    def check_can_migrate_volume_source(self, context, host, plan):
        """Ask what the volume is at its backend. Returns VolumeSourceFacts; InvalidRequest if there is none. No side effects."""
        return self._ask(volume_facts.VolumeSourceFacts, context, host, 'check_can_migrate_volume_source', plan=facts.to_wire(plan))

    def locate_volume(self, context, host, lun, migration_id, epoch):
        """Ask what the array says of `lun` (LunRef) at this moment. Returns VolumeLocation; DriverError if the array does not answer.

        The answer is also a fence: a request of that migration that was sent under an older epoch and comes later is refused.
        """
        return self._ask(volume_facts.VolumeLocation, context, host, 'locate_volume', lun=facts.to_wire(lun), migration_id=migration_id,
                         epoch=epoch)

    def get_operation(self, context, host, op_id):
        """Ask for the state of an operation. Returns Report, with state `unknown` if the agent never heard of it."""
        return self._ask(facts.Report, context, host, 'get_operation', op_id=op_id)

    def audit(self, context, host, marker=''):
        """Ask what is on the agent's arrays. Returns a traces.Part; its `more`, if it is not '', is the marker of the next one."""
        return self._ask(traces.Part, context, host, 'audit', marker=marker)

    def volume_progress(self, context, host, migration_id):
        """Ask how far the mirror or copy of a migration is. Returns Progress, inactive if none runs there."""
        return self._ask(volume_facts.Progress, context, host, 'volume_progress', migration_id=migration_id)

    # --- interventions ---

    def cancel_volume_job(self, context, host, migration_id):
        """End the copy, and forbid one that has not begun. Returns True if one was told to end. Repeatable. What was copied stays, until
        delete_target_volume."""
        return self._yes(context, host, 'cancel_volume_job', migration_id=migration_id)

    def set_copy_rate(self, context, host, migration_id, bytes_per_second):
        """Change the bandwidth limit of a copy or mirror that runs, 0 for none. Returns True if one runs there. Repeatable."""
        return self._yes(context, host, 'set_copy_rate', migration_id=migration_id, bytes_per_second=bytes_per_second)

    # --- life of a volume ---

    def create_volume(self, context, host, envelope, spec):
        """Have the LUN of `spec` (VolumeSpec) made. The outcome's result has `locator`; NameTaken, NoSpace: nothing is left."""
        return self._start(context, host, 'create_volume', envelope, spec=facts.to_wire(spec))

    def delete_volume(self, context, host, envelope, lun):
        """Have a LUN (LunRef) removed; absent is success. PreconditionFailed, in the outcome, while it is exported or worked on."""
        return self._start(context, host, 'delete_volume', envelope, lun=facts.to_wire(lun))

    def extend_volume(self, context, host, envelope, lun, size):
        """Have a LUN (LunRef) grown to `size` bytes. PreconditionFailed, in the outcome, where it cannot be while somebody writes it."""
        return self._start(context, host, 'extend_volume', envelope, lun=facts.to_wire(lun), size=size)

    def export_attachment(self, context, host, envelope, attachment):
        """Have a LUN made reachable for a guest (VolumeAttachment). The outcome's result has `connection`."""
        return self._start(context, host, 'export_attachment', envelope, attachment=facts.to_wire(attachment))

    def unexport_attachment(self, context, host, envelope, attachment):
        """Have that ended. PreconditionFailed, in the outcome, while a client is connected, unless the attachment says force."""
        return self._start(context, host, 'unexport_attachment', envelope, attachment=facts.to_wire(attachment))

    # --- migration ---

    def migrate_volume(self, context, host, envelope, plan):
        """Seed 001, step 1, at the source. The outcome's result has `moved` and `model_update`."""
        return self._start(context, host, 'migrate_volume', envelope, plan=facts.to_wire(plan))

    def export_volume(self, context, host, envelope, plan):
        """Have the source made reachable for the target. The outcome's result has `connection`."""
        return self._start(context, host, 'export_volume', envelope, plan=facts.to_wire(plan))

    def migrate_volume_target(self, context, host, envelope, plan):
        """Seed 001, step 2, at the target; plan.connection is needed. The result has `moved`, `migration_async`, `model_update`."""
        return self._start(context, host, 'migrate_volume_target', envelope, plan=facts.to_wire(plan))

    def cancel_migration_target(self, context, host, envelope, plan):
        """Have a take-over undone that was not committed. PreconditionFailed, in the outcome, once it was exported to anybody."""
        return self._start(context, host, 'cancel_migration_target', envelope, plan=facts.to_wire(plan))

    def complete_migration_target(self, context, host, envelope, plan):
        """Seed 001, step 4, at the target: ends when nothing is needed of the source. DriverError: both LUNs are kept, repeat it."""
        return self._start(context, host, 'complete_migration_target', envelope, plan=facts.to_wire(plan))

    def create_target_volume(self, context, host, envelope, plan):
        """Have the LUN of a host copy made. The outcome's result has `locator`; NameTaken, NoSpace: nothing is left."""
        return self._start(context, host, 'create_target_volume', envelope, plan=facts.to_wire(plan))

    def copy_volume(self, context, host, envelope, plan):
        """Have the data copied from plan.connection to the target's LUN; goes on behind what was flushed. Result: `bytes`, `seconds`."""
        return self._start(context, host, 'copy_volume', envelope, plan=facts.to_wire(plan))

    def verify_volume(self, context, host, envelope, plan):
        """Have both ends compared. The outcome's result has `digest` and `how`; DriverError if they differ."""
        return self._start(context, host, 'verify_volume', envelope, plan=facts.to_wire(plan))

    def delete_target_volume(self, context, host, envelope, plan):
        """Have what create_target_volume made removed, with its export; what somebody else made stays (PreconditionFailed)."""
        return self._start(context, host, 'delete_target_volume', envelope, plan=facts.to_wire(plan))

    def unexport_volume(self, context, host, envelope, plan):
        """Have the source's export ended. PreconditionFailed, in the outcome, while the target still uses it."""
        return self._start(context, host, 'unexport_volume', envelope, plan=facts.to_wire(plan))

    def delete_source_volume(self, context, host, envelope, plan):
        """Have the LUN removed that the volume has left. PreconditionFailed, in the outcome, while anybody uses it."""
        return self._start(context, host, 'delete_source_volume', envelope, plan=facts.to_wire(plan))
