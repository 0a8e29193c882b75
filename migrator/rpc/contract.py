"""The RPC contract as data: topics, versions and every method, in one place.

A method's `kind` tells how it is issued: CALL is a short blocking request without side effects; SPAWN is call-then-spawn
(acknowledged at once, its outcome comes back through `operation_finished`). `timeout` is in seconds and is the time for an answer to
a CALL, or for the acknowledgement of a SPAWN; it says nothing about how long the work takes.

Each table begins with 1.0: no peer without it exists. A method or an argument that comes after that raises
the minor version and says in which it came. The arguments that a method was born with are needed; later ones are left out for a peer
that does not know them, and must be such that the request is right without them. A field that is added to what a request carries,
such as the plan, has an empty default (false, 0, no text, an empty list): agents compare a repeated request with the first one by what
is not empty.
"""
import dataclasses
import enum
import re

CONTROL_EXCHANGE = 'migrator'
TOPIC_CONDUCTOR = 'migrator-conductor'
TOPIC_COMPUTE = 'migrator-compute'
TOPIC_VOLUME = 'migrator-volume'

#: Largest request that is accepted, in bytes of JSON.
MAX_PAYLOAD = 1 << 20

#: 1.0 - live migration: the eight methods of seed 000, instances, locate, operations, audit.
#: 1.1 - volumes: attach_volume, detach_volume.
COMPUTE_VERSION = '1.1'
#: 1.0 - the first release: volumes and their migration (seed 001), locate, operations, audit.
VOLUME_VERSION = '1.0'
#: 1.0 - the first release: migrations, recover, audit, debts, hosts, instances, backends, volumes (namespace None).
CONDUCTOR_VERSION = '1.0'
#: 1.0 - the first release: operation_finished, heartbeat, volume_heartbeat (namespace `agent`), what agents tell the conductor.
AGENT_NAMESPACE = 'agent'
AGENT_VERSION = '1.0'


class Kind(enum.StrEnum):
    """How a method is issued."""

    CALL = 'call'
    SPAWN = 'spawn'


@dataclasses.dataclass(frozen=True)
class Method:
    """One method: its name, how it is issued, the time-out in seconds, the names of its arguments, and one line of meaning.

    since: the version in which it came. added: (name, version) of arguments that came later.
    """

    name: str
    kind: Kind
    timeout: float
    arguments: tuple[str, ...]
    doc: str
    since: str = '1.0'
    added: tuple[tuple[str, str], ...] = ()

    def fitting(self, arguments, cap):
        """Leave out what came after version `cap` ('': nothing). Returns (arguments, the version that they need)."""
        came = dict(self.added)
        kept = {k: v for k, v in arguments.items() if not cap or k not in came or order(came[k]) <= order(cap)}
        return kept, max([self.since, *(came[k] for k in kept if k in came)], key=order)


def is_version(text):
    """True for a version such as 1.0."""
    return isinstance(text, str) and re.fullmatch(r'[0-9]{1,4}\.[0-9]{1,4}', text) is not None


def order(version):
    """Give what versions are compared by."""
    return tuple(int(number) for number in version.split('.'))


def first_of(version):
    """Give the first version that has the same major number."""
    return f'{order(version)[0]}.0'


COMPUTE = {m.name: m for m in (
    Method('check_can_live_migrate_destination', Kind.CALL, 15, ('guest',), 'DestinationFacts for the guest'),
    Method('check_can_live_migrate_source', Kind.CALL, 15, ('guest',), 'SourceFacts of the guest'),
    Method('locate_instance', Kind.CALL, 10, ('instance_uuid', 'migration_id', 'epoch'),
           'Location of the guest as this host sees it; what was sent under an older epoch is refused from then on'),
    Method('get_operation', Kind.CALL, 10, ('op_id',), "Report from the agent's journal; state `unknown` if it has none"),
    Method('abort_live_migration', Kind.CALL, 10, ('migration_id', 'instance_uuid'), 'cancel the job; true if there was one'),
    Method('force_complete_live_migration', Kind.CALL, 10, ('migration_id', 'instance_uuid'), 'make it converge; true if a job ran'),
    Method('audit', Kind.CALL, 30, ('marker',), "a Part of what is on the host; marker: where the last one ended, '' at first"),
    Method('pre_live_migration', Kind.SPAWN, 10, ('envelope', 'plan'), 'prepare the destination'),
    Method('live_migration', Kind.SPAWN, 10, ('envelope', 'plan', 'prepared'), 'run the hypervisor call at the source'),
    Method('post_live_migration_at_source', Kind.SPAWN, 10, ('envelope', 'plan'), 'remove what is left at the source'),
    Method('post_live_migration_at_destination', Kind.SPAWN, 10, ('envelope', 'plan'), 'make the arrived guest permanent'),
    Method('rollback_live_migration_at_source', Kind.SPAWN, 10, ('envelope', 'plan'), 'make sure that the guest goes on'),
    Method('rollback_live_migration_at_destination', Kind.SPAWN, 10, ('envelope', 'plan'), 'remove what was prepared'),
    Method('create_instance', Kind.SPAWN, 10, ('envelope', 'spec'), 'make disks and define the guest'),
    Method('start_instance', Kind.SPAWN, 10, ('envelope', 'instance_uuid'), 'start the guest'),
    Method('stop_instance', Kind.SPAWN, 10, ('envelope', 'instance_uuid', 'timeout'), 'stop the guest'),
    Method('delete_instance', Kind.SPAWN, 10, ('envelope', 'instance_uuid'), 'remove the guest and its disks'),
    Method('attach_volume', Kind.SPAWN, 10, ('envelope', 'attachment'), 'give the guest a volume as a disk; result: target', since='1.1'),
    Method('detach_volume', Kind.SPAWN, 10, ('envelope', 'attachment'), 'take the volume from the guest, which must let go of it',
           since='1.1'),
)}

#: plan: a volume_facts.VolumePlan. lun: a LunRef. All steps of a migration may be repeated; the agent does the work once.
VOLUME = {m.name: m for m in (
    Method('check_can_migrate_volume_target', Kind.CALL, 15, ('plan',), 'VolumeTargetFacts: what the target backend offers to the volume'),
    Method('check_can_migrate_volume_source', Kind.CALL, 15, ('plan',), 'VolumeSourceFacts: what the volume is at its backend'),
    Method('locate_volume', Kind.CALL, 20, ('lun', 'migration_id', 'epoch'),
           'VolumeLocation: what the array says of the LUN; what was sent under an older epoch is refused from then on'),
    Method('get_operation', Kind.CALL, 10, ('op_id',), "Report from the agent's journal; state `unknown` if it has none"),
    Method('audit', Kind.CALL, 30, ('marker',), "a Part of what is on the agent's arrays; marker: where the last one ended, '' at first"),
    Method('volume_progress', Kind.CALL, 10, ('migration_id',), 'Progress of its mirror or copy; inactive if none runs here'),
    Method('cancel_volume_job', Kind.CALL, 10, ('migration_id',), 'end its copy, and refuse one that has not begun; true if one ran'),
    Method('set_copy_rate', Kind.CALL, 10, ('migration_id', 'bytes_per_second'), '0: no limit; true if a copy runs here'),
    Method('create_volume', Kind.SPAWN, 10, ('envelope', 'spec'), 'make a LUN that reads as zeros; result: locator'),
    Method('delete_volume', Kind.SPAWN, 10, ('envelope', 'lun'), 'remove a LUN that nobody uses'),
    Method('extend_volume', Kind.SPAWN, 10, ('envelope', 'lun', 'size'), 'grow a LUN'),
    Method('export_attachment', Kind.SPAWN, 10, ('envelope', 'attachment'), 'make a LUN reachable for a guest; result: connection'),
    Method('unexport_attachment', Kind.SPAWN, 10, ('envelope', 'attachment'), 'end that'),
    Method('migrate_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'seed 001, step 1: ask the source driver; result: moved, model_update'),
    Method('export_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'make the source reachable for the target; result: connection'),
    Method('migrate_volume_target', Kind.SPAWN, 10, ('envelope', 'plan'),
           'seed 001, step 2: ask the target driver; result: moved, migration_async, model_update'),
    Method('cancel_migration_target', Kind.SPAWN, 10, ('envelope', 'plan'), 'undo a take-over that was not committed'),
    Method('complete_migration_target', Kind.SPAWN, 10, ('envelope', 'plan'), 'seed 001, step 4: until nothing is needed of the source'),
    Method('create_target_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'make the LUN of a host copy; result: locator'),
    Method('copy_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'copy from the source; goes on where it was; result: bytes, seconds'),
    Method('verify_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'compare both ends; result: digest, how'),
    Method('delete_target_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'remove what create_target_volume made'),
    Method('unexport_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'end what export_volume began'),
    Method('delete_source_volume', Kind.SPAWN, 10, ('envelope', 'plan'), 'remove the LUN that the volume has left'),
)}

#: What agents call on the conductor, namespace AGENT_NAMESPACE.
AGENT = {m.name: m for m in (
    Method('operation_finished', Kind.CALL, 5, ('report',), 'Report of an operation; repeated until it is acknowledged'),
    Method('heartbeat', Kind.CALL, 10, ('heartbeat',), 'alive, inventory, progress; answers {resync: bool}'),
    Method('volume_heartbeat', Kind.CALL, 10, ('heartbeat',),
           'of a volume agent (VolumeHeartbeat): alive, all its backends, progress; answers {ended, unknown}: ids of `copies`'),
)}

#: What an API tier or the command line calls on the conductor.
CONDUCTOR = {m.name: m for m in (
    Method('live_migrate', Kind.CALL, 30, ('instance', 'destination_host', 'request_id', 'options'), 'ask for a live migration'),
    Method('show', Kind.CALL, 30, ('migration',), 'one migration with its timeline'),
    Method('list', Kind.CALL, 30, ('filters', 'limit', 'marker'), 'migrations, newest first'),
    Method('abort', Kind.CALL, 30, ('migration',), 'abort; TooLate after the point of no return'),
    Method('force_complete', Kind.CALL, 30, ('migration',), 'make a running one converge'),
    Method('recover', Kind.CALL, 30, ('migration', 'assert_dead'), 'have one looked at; assert_dead: a host attested to be off, or null'),
    Method('audit', Kind.CALL, 120, ('host',), 'what is on the hosts that nobody answers for; host: only this one, or null'),
    Method('debts', Kind.CALL, 30, ('filters', 'limit', 'marker'), 'cleanups that hosts owe, oldest first'),
    Method('debt_write_off', Kind.CALL, 30, ('debt', 'reason'), 'give up what a silent host owes'),
    Method('hosts', Kind.CALL, 30, (), 'all hosts'),
    Method('host_show', Kind.CALL, 30, ('host',), 'one host'),
    Method('host_disable', Kind.CALL, 30, ('host', 'reason'), 'no new work for the host'),
    Method('host_enable', Kind.CALL, 30, ('host',), 'take new work again'),
    Method('instances', Kind.CALL, 30, ('filters', 'limit', 'marker'), 'all instances, by name'),
    Method('instance_show', Kind.CALL, 30, ('instance',), 'one instance, by uuid or unique name'),
    Method('instance_create', Kind.CALL, 30, ('host', 'spec', 'request_id', 'start'), 'make an instance on a host'),
    Method('instance_start', Kind.CALL, 30, ('instance', 'request_id'), 'start an instance'),
    Method('instance_stop', Kind.CALL, 30, ('instance', 'request_id', 'timeout'), 'stop an instance'),
    Method('instance_delete', Kind.CALL, 30, ('instance', 'request_id'), 'delete a stopped instance'),
    Method('instance_forget', Kind.CALL, 120, ('instance', 'assert_dead'),
           'remove the row of an instance that no host has; assert_dead: hosts attested to be off'),
    Method('backends', Kind.CALL, 30, (), 'all backends of volume agents, by name'),
    Method('backend_show', Kind.CALL, 30, ('backend',), 'one backend (host@backend) with its pools'),
    Method('volumes', Kind.CALL, 30, ('filters', 'limit', 'marker'), 'all volumes, by name'),
    Method('volume_show', Kind.CALL, 30, ('volume',), 'one volume, by id or unique name, with its attachments'),
    Method('volume_create', Kind.CALL, 30, ('spec', 'request_id'), 'make a volume'),
    Method('volume_delete', Kind.CALL, 30, ('volume', 'request_id'), 'delete a volume that nobody has'),
    Method('volume_extend', Kind.CALL, 30, ('volume', 'size', 'request_id'), 'make a volume larger'),
    Method('volume_attach', Kind.CALL, 30, ('volume', 'instance', 'options', 'request_id'), 'give an instance a volume'),
    Method('volume_detach', Kind.CALL, 30, ('volume', 'instance', 'options', 'request_id'), 'take a volume from an instance'),
    Method('set_bandwidth', Kind.CALL, 30, ('migration', 'bytes_per_second'), "limit a volume's copy, while it runs too; 0 is no limit"),
    Method('volume_migrate', Kind.CALL, 30, ('volume', 'destination', 'request_id', 'options'), 'move a volume to another pool'),
)}
