"""Well-formed values about volumes, as a conductor would send them."""
import dataclasses

from migrator.rpc import facts
from migrator.rpc import volume_facts as vf

MIB = 1 << 20
MIGRATION = '11111111-1111-4111-8111-111111111111'
VOLUME = '22222222-2222-4222-8222-222222222222'
ATTACHMENT = '33333333-3333-4333-8333-333333333333'

SOURCE = vf.LunRef('alpha', 'old', 'slow', f'volume-{VOLUME}')
TARGET = vf.Target(MIGRATION, VOLUME, 'beta', 'new', 'fast', f'volume-{VOLUME}-{MIGRATION[:8]}', 32 * MIB)
CONNECTION = vf.Connection('nbd://127.0.0.1:10809/migration-1', True, 32 * MIB)


def plan(**changes):
    """Make a VolumePlan."""
    given = {'migration_id': MIGRATION, 'volume_id': VOLUME, 'source': SOURCE, 'target': TARGET, 'size': 32 * MIB}
    return vf.VolumePlan(**given | changes)


def plan_between(source, target, size=32 * MIB, **changes):
    """Make a VolumePlan from one LunRef to another."""
    goal = dataclasses.replace(TARGET, host=target.host, backend=target.backend, pool=target.pool, lun=target.lun, size=size)
    return plan(source=source, target=goal, size=size, **changes)


def envelope(step, attempt=1, epoch=1, migration=MIGRATION):
    """Make the head of a request."""
    return facts.Envelope(f'{migration}/{step}/{attempt}', migration, epoch)


LUN = vf.Lun('slow', 'vol', size=32 * MIB, owner=MIGRATION, exports=(vf.Export('e', True, 1),), locator={'lun': 'vol'})
ATTACHED = vf.VolumeAttachment(ATTACHMENT, VOLUME, SOURCE)
SPEC = vf.VolumeSpec(VOLUME, SOURCE, 32 * MIB)
BACKEND = vf.Backend('old', 'qsd', pools=(vf.Pool('slow', 100, 50),), capabilities=('thin',))
HEARTBEAT = vf.VolumeHeartbeat('alpha', 'process', 'boot', 3, 12.5, '1.0', backends=(BACKEND,),
                               progress={MIGRATION: facts.to_wire(vf.Progress(True, 10, 5, 1))})
#: One of each class.
ALL = (plan(), plan(connection=CONNECTION), SOURCE, TARGET, CONNECTION, LUN, ATTACHED, SPEC, BACKEND, HEARTBEAT, vf.Pool('p'),
       vf.VolumeTargetFacts('qsd', pool=vf.Pool('fast', 9, 8)), vf.VolumeSourceFacts('qsd', lun=LUN), vf.VolumeLocation(LUN, True, 'p'),
       vf.VolumeLocation(), vf.Progress(True, 10, 5, 1, True))
