"""Which workflow acts in which world. A workflow that is registered and not named here is not checked, which a test does not allow."""
from migrator.conductor.workflows import WORKFLOWS
from migrator.states import GuestState as G
from tests.model.array_world import AttachmentWorld, Lun, LunWorld
from tests.model.instance_world import InstanceWorld
from tests.model.migration_world import MigrationWorld
from tests.model.model import Model
from tests.model.volume_world import VolumeWorld

ON_ONE_HOST = (G.OFF, G.RUNNING)

WORLDS = {
    'live_migration': MigrationWorld(),
    'instance_create': InstanceWorld((G.ABSENT,), G.RUNNING),
    'instance_define': InstanceWorld((G.ABSENT,), G.OFF),
    'instance_start': InstanceWorld(ON_ONE_HOST, G.RUNNING),
    'instance_stop': InstanceWorld(ON_ONE_HOST, G.OFF),
    'instance_delete': InstanceWorld((G.OFF,), G.ABSENT),
    'volume_create': LunWorld(False, Lun(True)),
    'volume_delete': LunWorld(True, Lun(False)),
    'volume_extend': LunWorld(True, Lun(True, True)),
    'volume_attach': AttachmentWorld(False),
    'volume_detach': AttachmentWorld(True),
    'volume_cut_off': AttachmentWorld(True, cut_off=True),
    'volume_migration': VolumeWorld(),
}


class NoWorld(Exception):
    """A workflow has no world; the text says what to do."""


def model_of(kind, workflow=None, world=None, **options):
    """Make the model of a registered workflow, or of a changed table in its place. options: see Model. Raises NoWorld."""
    if kind not in WORLDS:
        raise NoWorld(f'the workflow {kind} is not checked: write down in a subclass of tests.model.world.World what its methods do to '
                      'what it acts upon, what must hold of that, and name it in WORLDS in tests/model/worlds.py')
    return Model(workflow or WORKFLOWS[kind], world or WORLDS[kind], **options)
