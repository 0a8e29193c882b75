"""Every workflow as a table that reads on one page. `WORKFLOWS` is the registry; the model check and the diagrams walk over it."""
from migrator.conductor.workflows.instance import INSTANCE_CREATE, INSTANCE_DEFINE, INSTANCE_DELETE, INSTANCE_START, INSTANCE_STOP
from migrator.conductor.workflows.live_migration import LIVE_MIGRATION
from migrator.conductor.workflows.volume import VOLUME_ATTACH, VOLUME_CREATE, VOLUME_CUT_OFF, VOLUME_DELETE, VOLUME_DETACH, VOLUME_EXTEND
from migrator.conductor.workflows.volume_migration import VOLUME_MIGRATION

WORKFLOWS = {w.kind: w for w in (
    LIVE_MIGRATION, INSTANCE_CREATE, INSTANCE_DEFINE, INSTANCE_START, INSTANCE_STOP, INSTANCE_DELETE,
    VOLUME_MIGRATION, VOLUME_CREATE, VOLUME_DELETE, VOLUME_EXTEND, VOLUME_ATTACH, VOLUME_DETACH,
    VOLUME_CUT_OFF)}
