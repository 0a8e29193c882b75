"""May this volume move from here to there? Pure: what both arrays say and what was asked for in, the reasons against it out."""
from migrator.states import LunState


def reasons(source, target, plan, options):
    """Give what speaks against a migration, in words; empty: it is possible. Nothing has been made anywhere when this is asked.

    source, target: volume_facts.VolumeSourceFacts and VolumeTargetFacts, as the checks return them. plan: the VolumePlan. options: of
    the request; `new_type` is the type that the volume is to have, '' for the one that it has.
    """
    return (*_of_source(source, plan), *_of_target(target, plan, options.get('new_type', '')), *_of_both(source, target, plan))


def _of_source(source, plan):
    where = plan.source.place
    if source.offline:
        yield f'the array of {where} does not answer: {source.offline}'
        return
    lun = source.lun
    if lun is None or lun.state is LunState.ABSENT:
        yield f'{where} has no LUN {plan.source.lun}'
        return
    if lun.state is LunState.MIRRORING:
        yield f'the volume is still being fetched by {where} from another array'
    elif lun.state is not LunState.READY:
        yield f'the LUN of the volume at {where} is not whole'
    if lun.snapshots:
        yield f'the volume has {lun.snapshots} snapshots, which would be lost'
    others = sorted(export.name for export in lun.exports if export.name != plan.export)
    if others:
        yield f'the volume is in use at {where}: it is exported as {", ".join(others)}'
    if lun.size > plan.size:
        yield f'the volume has {lun.size} bytes at {where}, and only {plan.size} were to be moved'


def _of_target(target, plan, new_type):
    where = f'{plan.target.host}@{plan.target.backend}'
    if target.offline:
        yield f'the array of {where} does not answer: {target.offline}'
        return
    if target.pool is None:
        yield f'{where} has no pool {plan.target.pool}'
    elif target.pool.free < plan.target.size:
        yield f'{where}#{plan.target.pool} has {target.pool.free} bytes free, the volume needs {plan.target.size}'
    if target.occupied:
        yield f'{plan.target.lun} cannot be made at {where}: {target.occupied}'
    if new_type and new_type not in target.types:
        yield f'{where} does not serve volumes of the type {new_type}'


def _of_both(source, target, plan):
    """Two agents, or two names of one, may serve the same array; moving within a pool would make a copy only to remove it. And the target
    must be able to read what the source exports, or nothing but that would fail after all the rest."""
    if source.array_id and source.array_id == target.array_id and plan.source.pool == plan.target.pool:
        yield f'source and destination are the same pool of one array: {plan.source.pool} of {source.array_id}'
    if source.tls and not (target.tls or target.offline):
        where = f'{plan.target.host}@{plan.target.backend}'
        yield f'the exports of {plan.source.place} want TLS, and the agent of {where} has no tls_credentials to reach them'
