"""What the catalogue learns in the very transaction that records a step's proof, or the end of a workflow."""
from oslo_log import log

from migrator import exceptions
from migrator.conductor import locate_volume, stimulus, volume_work
from migrator.conductor.db import catalogue, volumes
from migrator.conductor.workflows.model import Commit
from migrator.rpc import facts, volume_facts
from migrator.states import GuestState, InstanceState, Status, VolumeMigration

LOG = log.getLogger(__name__)


def commit(tx, record, what, reply, told=None):
    """Write into the catalogue what a step has proven. told: the workflow's facts with what this step returned; None: as in the record."""
    row, uuid = record.row, record.row.instance_uuid
    if what is Commit.AT_DESTINATION:
        state = catalogue.STATE.get(reply.event.destination.state, InstanceState.RUNNING)
        catalogue.update(tx, uuid, host=row.destination_host, state=state.value)
    elif what is Commit.RUNNING:
        catalogue.update(tx, uuid, state=InstanceState.RUNNING.value)
    elif what is Commit.STOPPED:
        catalogue.update(tx, uuid, state=InstanceState.STOPPED.value)
    elif what is Commit.DELETED:
        catalogue.delete(tx, uuid)
    elif what is Commit.CREATED and not catalogue.several(tx, [uuid]):
        catalogue.insert(tx, uuid, catalogue.values(made(row, reply), row.source_host))
    elif what in volume_work.COMMITS:
        volume_work.commit(tx, row, what, reply.result)
    elif what in (Commit.MOVED, Commit.ATTACHABLE, Commit.SUCCESS):
        _of_volume(tx, row, what, reply, row.facts if told is None else told)


def made(row, reply):
    """Describe a guest that was made: as its host does, or as it was asked for if the host did not say."""
    try:
        return facts.from_wire(facts.Guest, reply.result.get('guest'))
    except exceptions.InvalidRequest as error:
        LOG.debug('the catalogue takes the guest as it was asked for: %s', error)
    spec = facts.from_wire(facts.InstanceSpec, row.request['spec'])
    return facts.Guest(uuid=spec.uuid, name=spec.name, state=GuestState.OFF, memory_mib=spec.memory_mib, vcpus=spec.vcpus, managed=True)


def _of_volume(tx, row, what, reply, told):
    """The volume is at the destination from now on; with `lock_volume` nobody attaches it before the migration has ended."""
    if what is Commit.SUCCESS:
        columns = {'migration_status': VolumeMigration.SUCCESS.value}
        if isinstance(update_of(reply).get('locator'), dict):
            columns['locator'] = update_of(reply)['locator']
        volumes.update(tx, row.volume_id, **columns)
        return
    plan, options = facts.from_wire(volume_facts.VolumePlan, row.plan), row.request.get('options', {})
    where, status = plan.target, VolumeMigration.SUCCESS
    columns = {'host': where.host, 'backend': where.backend, 'pool': where.pool, 'lun': where.lun, 'locator': locator_of(reply, told)}
    if options.get('new_type'):
        columns['type'] = options['new_type']
    if what is Commit.ATTACHABLE:
        status = VolumeMigration.MIGRATING if options.get('lock_volume') else VolumeMigration.ATTACHABLE
        if not options.get('lock_volume'):
            volumes.let_attach(tx, row.volume_id, row.id)
    volumes.update(tx, row.volume_id, migration_status=status.value, error='', **columns)


def update_of(reply):
    """Give a driver's model_update, {} where there is none."""
    update = reply.result.get('model_update')
    return update if isinstance(update, dict) else {}


def locator_of(reply, told):
    """Give how the target's driver knows the LUN: by its own words, by what the array said of it, or from when the copy was made."""
    if isinstance(reply.event, stimulus.Observed) and isinstance(reply.event.destination, locate_volume.Answer):
        return reply.event.destination.locator
    made_then = told.get('create_target_volume', {}).get('locator')
    found = update_of(reply).get('locator', made_then)
    return found if isinstance(found, dict) else {}


def ended(tx, row, cursor):
    """Write down that a workflow has ended without coming to its commits: the volume is where it was."""
    if row.kind in volume_work.KINDS:
        volume_work.ended(tx, row, cursor)
    if row.kind == 'volume_migration' and cursor.status is not Status.COMPLETED:
        status = VolumeMigration.ERROR if cursor.status is Status.FAILED else VolumeMigration.NONE
        volumes.update(tx, row.volume_id, migration_status=status.value, error=cursor.error if status is VolumeMigration.ERROR else '')
