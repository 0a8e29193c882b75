"""The conductor's way to volume agents for a migration: what they are asked about a volume, and what each step is given.

As with `agents`, nothing here decides. What the steps are given is the plan that was stored when the migration was asked for, with the
connection that the source has told since.
"""
import dataclasses

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.conductor import locate_volume
from migrator.conductor.compatible_volume import reasons
from migrator.rpc import errors, facts, volume_facts

LOG = log.getLogger(__name__)


def new_plan(migration_id, volume, host, backend, pool, options):
    """Decide once, before anything is made, what every step of a migration is given; with the name of the LUN at the destination.

    volume: a row of the catalogue. host, backend, pool: where it is to go. options: of the request: force_host_copy, new_type, verification
    (sampled or full), bandwidth (bytes a second, 0 is no limit). Another type is had by a copy alone. Returns a VolumePlan.
    """
    target = volume_facts.Target(migration_id, volume.id, host, backend, pool, f'volume-{volume.id}-{migration_id[:8]}', volume.size)
    return volume_facts.VolumePlan(
        migration_id, volume.id, volume_facts.LunRef(volume.host, volume.backend, volume.pool, volume.lun), target, volume.size,
        force_host_copy=bool(options.get('force_host_copy') or options.get('new_type')),
        verification=options.get('verification') or 'sampled', bandwidth=options.get('bandwidth') or 0)


def plan_of(row):
    """Read the plan of a volume's migration; with the source's connection once that is known."""
    plan = facts.from_wire(volume_facts.VolumePlan, row.plan)
    told = row.facts.get('export_volume', {}).get('connection')
    return dataclasses.replace(plan, connection=facts.from_wire(volume_facts.Connection, told)) if told else plan


def target_of(plan):
    """Give where the LUN at the destination is, a LunRef."""
    where = plan.target
    return volume_facts.LunRef(where.host, where.backend, where.pool, where.lun)


def removed_by(method, plan):
    """Give the LUN that a cleanup removes, None for one that removes none."""
    if method == 'delete_source_volume':
        return plan.source
    return target_of(plan) if method in ('delete_target_volume', 'cancel_migration_target') else None


def check(api, asking, context, row):
    """Issue both checks at once. Returns the reasons against the migration; raises what the first failing one raised.

    api: a migrator.rpc.volume.VolumeAPI. asking: calls one of its methods, so that what is wrong gets the host's name.
    """
    plan = plan_of(row)
    there = concurrency.spawn(asking, api.check_can_migrate_volume_target, context, row.destination_host, plan)
    here = asking(api.check_can_migrate_volume_source, context, row.source_host, plan)
    return reasons(here, there.wait(), plan, row.request.get('options', {}))


def locate(api, context, row, source_side, dead):
    """Ask one agent what its array says of its LUN. Returns a locate_volume.Answer: what does not answer is UNREACHABLE, or DEAD.

    The agent refuses from then on what an earlier epoch sent: a request that is still under way cannot change what it said.
    """
    plan = plan_of(row)
    where = plan.source if source_side else target_of(plan)
    try:
        found = api.locate_volume(context, where.host, where, row.id, row.epoch)
    except (errors.NoAnswer, errors.NotDelivered) as error:
        LOG.warning('%s does not say what it has of the volume: %s', where.place, error)
        return locate_volume.DEAD if dead else locate_volume.UNREACHABLE
    except exceptions.MigratorError as error:
        LOG.warning('%s cannot say what it has of the volume: %s', where.place, error)
        return locate_volume.UNREACHABLE
    return locate_volume.read(found, (plan.export, plan.copy_export))
