"""The conductor's way to the agents: what the engine wants to know or to have done, turned into calls, and answers into stimuli.

Nothing here decides. A call without an answer becomes Silent (nothing is known), a refusal becomes Refused, an agent that knows
the operation says how it stands. Every call has a short time-out, for the work itself is never waited for.
"""
import dataclasses

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.conductor import stimulus, volume_agents, volume_work
from migrator.conductor.compatible import compatible
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.model import Role
from migrator.conductor.workflows.volume_migration import VOLUME_MIGRATION
from migrator.rpc import errors, facts
from migrator.states import AgentKind, GuestState, OperationState

LOG = log.getLogger(__name__)

#: What says that the other side is older than this one; nothing was done.
TOO_NEW = (errors.NoSuchMethod, errors.UnsupportedVersion)

UNREACHABLE = facts.Location(state=GuestState.UNREACHABLE)
DEAD = facts.Location(state=GuestState.DEAD)


@dataclasses.dataclass(frozen=True)
class Reply:
    """What an exchange with agents came to: the stimulus for the workflow, and what is to be stored along with it."""

    event: object
    op_id: str = ''
    result: dict = dataclasses.field(default_factory=dict)
    error: str = ''
    plan: dict = dataclasses.field(default_factory=dict)
    host: str = ''                                    # who reported of its own accord; '' for an answer to a question
    gone: bool = False                                # the host said that it knows no such guest
    asked: int = 0                                    # when it was asked, by the database's clock in ms; 0 for what comes of its own accord


def finished(report):
    """Turn an agent's report of an ended operation into a reply."""
    kind = getattr(exceptions, report.error_type, None)
    untouched = isinstance(kind, type) and issubclass(kind, exceptions.PreconditionFailed)      # by the contract of the drivers
    gone, state = kind is exceptions.InstanceNotFound, report.state
    if gone and report.op_id.split('/')[1:2] == ['detach_volume']:
        state = OperationState.SUCCEEDED        # a host that knows no such guest has nothing open for it
    return Reply(stimulus.Finished(state, report.error, untouched), report.op_id, report.result, report.error, gone=gone)


def check_reporter(host, expected, op_id):
    """Raise WrongHost unless the report of an operation comes from the host that it was sent to."""
    if host != expected:
        raise exceptions.WrongHost(f'{op_id} was sent to {expected}, a report of it from {host} is not believed')


def host_of(row, role):
    """Name the host that has a role in a migration."""
    return row.destination_host if role is Role.DESTINATION else row.source_host


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a method of a workflow is done: the host, its role, and the kind of its agent."""

    host: str
    role: Role
    agent: AgentKind = AgentKind.COMPUTE


class Agents:
    """All agents, as the engine sees them."""

    def __init__(self, compute, volume=None):
        """compute: a migrator.rpc.compute.ComputeAPI. volume: a migrator.rpc.volume.VolumeAPI, None where there are no volumes."""
        self.compute = compute
        self.volume = volume

    def api(self, kind):
        """Give the client of the agents of one kind. Raises NotPossible where this conductor has none."""
        found = {AgentKind.COMPUTE: self.compute, AgentKind.VOLUME: self.volume}[kind]
        if found is None:
            raise exceptions.NotPossible(f'this conductor does not reach agents of the kind {kind.value}')
        return found

    # --- questions ---

    def check(self, context, guest, source_host, destination_host):
        """Issue both checks at once. Returns (SourceFacts, DestinationFacts); raises what the first failing one raised.

        Should the guest have other disks than the catalogue knows of, the destination is asked again about the true ones.
        """
        there = concurrency.spawn(naming, self.compute.check_can_live_migrate_destination, context, destination_host, guest)
        here = naming(self.compute.check_can_live_migrate_source, context, source_host, guest)
        offer = there.wait()
        if {d.path: d.backing for d in here.disks} != {d.path: d.backing for d in guest.disks}:
            guest = dataclasses.replace(guest, disks=here.disks)
            offer = naming(self.compute.check_can_live_migrate_destination, context, destination_host, guest)
        return here, offer

    def checked(self, context, row):
        """Check a stored migration; the answers become a plan or reasons against it."""
        check = self._volume_checked if of_volumes(row) else self._guest_checked
        try:
            return check(context, row)
        except (errors.NoAnswer, errors.NotDelivered, *TOO_NEW) as error:
            LOG.warning('the checks are not answered: %s', error)
            return Reply(stimulus.Silent(error.host))
        except exceptions.MigratorError as error:
            return Reply(stimulus.Checked((str(error),)))

    def _volume_checked(self, context, row):
        return Reply(stimulus.Checked(volume_agents.check(self.api(AgentKind.VOLUME), naming, context, row)))

    def _guest_checked(self, context, row):
        guest = facts.from_wire(facts.Guest, row.request['guest'])
        source, destination = self.check(context, guest, row.source_host, row.destination_host)
        verdict = compatible(source, destination)
        plan = plan_of(row.id, guest, row.source_host, row.destination_host, row.request.get('options', {}), source, destination, verdict)
        return Reply(stimulus.Checked(verdict.reasons or unusable(plan)), plan=facts.to_wire(plan))

    def locate(self, context, host, row, dead=False):
        """Ask one host where the guest is; no answer, or one that cannot tell, is UNREACHABLE. dead: no answer is DEAD.

        The host refuses from then on what an earlier epoch sent: a request that is still under way cannot change what it said.
        """
        if not host:
            return facts.Location(state=GuestState.ABSENT)
        try:
            found = self.compute.locate_instance(context, host, row.instance_uuid, row.id, row.epoch)
        except (errors.NoAnswer, errors.NotDelivered) as error:
            LOG.warning('%s does not say where the guest is: %s', host, error)
            return DEAD if dead else UNREACHABLE
        except exceptions.MigratorError as error:
            LOG.warning('%s cannot say where the guest is: %s', host, error)
            return UNREACHABLE
        return UNREACHABLE if found.state is GuestState.DEAD else found     # no host can say that of itself

    def observed(self, context, row, source=None, dead=(False, False)):
        """Ask the source and then the destination, where the guest or the volume is.

        source: what the source said with its report a moment ago, if it did. dead: whether source and destination are attested to be off.
        Never the other way round or at once: what the destination says must not be older than what the source says. A job could end
        in between, and a guest that is left paused at the source would be resumed for a destination that was still empty when it was asked.
        """
        if of_volumes(row):
            volume = self.api(AgentKind.VOLUME)
            here = volume_agents.locate(volume, context, row, True, dead[0])
            return Reply(stimulus.Observed(here, volume_agents.locate(volume, context, row, False, dead[1])))
        here = source or self.locate(context, row.source_host, row, dead[0])
        return Reply(stimulus.Observed(here, self.locate(context, row.destination_host, row, dead[1])))

    def poll(self, context, op_id, place):
        """Ask how an operation stands. place: where it is done."""
        host = place.host
        try:
            report = self.api(place.agent).get_operation(context, host, op_id)
        except (errors.NoAnswer, errors.NotDelivered):
            return Reply(stimulus.Silent(host), op_id)
        except exceptions.MigratorError as error:
            return Reply(stimulus.Refused(f'{host}: {error}'), op_id)
        if report.state is OperationState.UNKNOWN:
            return Reply(stimulus.Unknown(), op_id)
        return finished(report) if report.state.finished else Reply(stimulus.Alive(), op_id)

    # --- work ---

    def begin(self, context, method, place, envelope, arguments):
        """Issue an operation. Returns a Reply, or None when it was taken and runs: its outcome comes as an event."""
        host = place.host
        try:
            report = getattr(self.api(place.agent), method)(context, host, envelope, **arguments)
        except (errors.NoAnswer, errors.NotDelivered):
            return Reply(stimulus.Silent(host), envelope.op_id)
        except TOO_NEW as error:        # an agent that was not known to be so old; the next attempt speaks its language
            return Reply(stimulus.Refused(f'{host} took no work: {error}'), envelope.op_id)
        except exceptions.InvalidRequest as error:
            return Reply(stimulus.Finished(OperationState.FAILED, str(error), untouched=True), envelope.op_id, error=str(error))
        except exceptions.MigratorError as error:
            return Reply(stimulus.Refused(f'{host} took no work: {error}'), envelope.op_id)
        return finished(report) if report.state.finished else None

    def abort_job(self, context, row, method):
        """Tell the agent of a step to cancel its job. Best effort: it is repeated until the workflow moves on."""
        place = place_of(row, method)
        named = (row.id, row.instance_uuid) if place.agent is AgentKind.COMPUTE else (row.id,)
        try:
            getattr(self.api(place.agent), WORKFLOWS[row.kind].step(method).cancel)(context, place.host, *named)
        except (errors.NoAnswer, errors.NotDelivered, exceptions.MigratorError) as error:
            LOG.warning('%s was not told to cancel the job, it will be told again: %s', place.host, error)


def naming(call, context, host, *args):
    """Call an agent; what it says is wrong gets the host's name, which the agent's own words leave out."""
    try:
        return call(context, host, *args)
    except (errors.NoAnswer, errors.NotDelivered, *TOO_NEW) as error:
        error.host = host
        raise
    except (exceptions.AgentError, exceptions.NotFound) as error:
        raise getattr(exceptions, error.kind)(f'{host}: {error}') from None


def plan_of(migration_id, guest, source_host, destination_host, options, source, destination, verdict):
    """Decide once what every step is given."""
    return facts.Plan(
        migration_id=migration_id, instance_uuid=guest.uuid, source_host=source_host, destination_host=destination_host,
        connection_uri=destination.connection_uri, migration_host=destination.migration_host,
        listen_address=destination.listen_address, disks=verdict.disks, copy=verdict.copy,
        bandwidth_mib=options.get('bandwidth_mib', 0), memory_mib=source.memory_mib)


def unusable(plan):
    """Give the reasons for which no agent would take a plan: found now, for later there would be nobody to refuse it to."""
    try:
        facts.from_wire(facts.Plan, facts.to_wire(plan))
    except exceptions.InvalidRequest as error:
        return (f'what the source says of the guest cannot be worked with: {error}',)
    return ()


def arguments_of(row, method):
    """Give the arguments of a workflow's operation, from the frozen request, the plan and the facts of earlier steps."""
    if of_volumes(row):
        return {'plan': volume_agents.plan_of(row)}
    if row.kind in volume_work.KINDS:
        return volume_work.arguments_of(row, method)
    if row.kind != 'live_migration':
        if method == 'create_instance':
            return {'spec': facts.from_wire(facts.InstanceSpec, row.request['spec'])}
        if method == 'stop_instance':
            return {'instance_uuid': row.instance_uuid, 'timeout': row.request.get('timeout', 0)}    # what was never handed over is cut off
        return {'instance_uuid': row.instance_uuid}
    plan = facts.from_wire(facts.Plan, row.plan)
    if method == 'live_migration':
        return {'plan': plan, 'prepared': row.facts.get('pre_live_migration', {})}
    return {'plan': plan}


def of_volumes(row):
    """Tell whether a workflow is the migration of a volume."""
    return row.kind == VOLUME_MIGRATION.kind


def place_of(row, method):
    """Say where a method of a workflow is done."""
    line = WORKFLOWS[row.kind].line(method)
    return Place(host_of(row, line.on), line.on, line.agent)
