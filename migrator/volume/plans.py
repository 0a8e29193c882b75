"""What a volume agent reads out of the plan that the steps of a migration are given, and of the names of exports. Pure."""
import dataclasses

from migrator import exceptions
from migrator.rpc import facts
from migrator.rpc import volume_facts as vf


def read_plan(data):
    """Read a plan as it came over the wire. Raises InvalidRequest."""
    return facts.from_wire(vf.VolumePlan, data, 'plan')


def connected(data):
    """Read a plan that must say how the source is reached; returns it and the target's LunRef. Raises InvalidRequest."""
    plan = read_plan(data)
    if plan.connection is None:
        raise exceptions.InvalidRequest('plan.connection is missing: the source has not been exported')
    return plan, target_of(plan)


def target_of(plan):
    """Give the LunRef of a plan's target."""
    where = plan.target
    return vf.LunRef(where.host, where.backend, where.pool, where.lun)


def limited(plan):
    """Give the target as a driver gets it, with the limit as the plan has it now."""
    return dataclasses.replace(plan.target, bandwidth=plan.bandwidth)


def owner_of(export):
    """Give the migration that an export is of, '' if it is none's."""
    kind, _, rest = export.partition('-')
    return rest if kind == 'migration' and facts.UUID.match(rest) else ''
