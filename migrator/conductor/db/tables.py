"""The tables. Changes go through Alembic (migrations/), expand first, contract a release later.

Times are integers: milliseconds since 1970 by the *database's* clock, so that the clocks of conductors do not matter.
"""
import sqlalchemy as sa

metadata = sa.MetaData(naming_convention={
    'ix': 'ix_%(table_name)s_%(column_0_N_name)s', 'uq': 'uq_%(table_name)s_%(column_0_N_name)s', 'pk': 'pk_%(table_name)s'})

UUID = sa.String(36)
WORD = sa.String(64)
TIME = sa.BigInteger


def _text(name):
    return sa.Column(name, sa.Text, nullable=False, default='')


#: One workflow: what was asked, where it stands (the cursor), and what it has learned. resource: what it is about, a guest, a volume, or
#: both; what it is not about is ''. source_agent, destination_agent: which kind of agent does its steps there.
migration = sa.Table(
    'migration', metadata,
    sa.Column('id', UUID, primary_key=True),
    sa.Column('kind', WORD, nullable=False),
    sa.Column('resource', WORD, nullable=False, default='instance'),
    sa.Column('instance_uuid', UUID, nullable=False, default='', index=True),
    sa.Column('instance_name', sa.String(128), nullable=False, default=''),
    sa.Column('volume_id', UUID, nullable=False, default='', index=True),
    sa.Column('volume_name', sa.String(128), nullable=False, default=''),
    sa.Column('source_host', WORD, nullable=False),
    sa.Column('source_agent', WORD, nullable=False, default='compute'),
    sa.Column('destination_host', WORD, nullable=False, default=''),
    sa.Column('destination_agent', WORD, nullable=False, default='compute'),
    sa.Column('parent_id', UUID),
    sa.Column('request_id', sa.String(128), nullable=False, unique=True),
    sa.Column('user', sa.String(128), nullable=False, default=''),
    sa.Column('request', sa.JSON, nullable=False),
    sa.Column('policy', sa.JSON, nullable=False),
    sa.Column('plan', sa.JSON, nullable=False),
    sa.Column('facts', sa.JSON, nullable=False),
    sa.Column('progress', sa.JSON, nullable=False),
    sa.Column('epoch', sa.BigInteger, nullable=False, default=1),
    sa.Column('status', WORD, nullable=False),
    sa.Column('phase', WORD, nullable=False),
    sa.Column('step', WORD, nullable=False, default=''),
    sa.Column('direction', WORD, nullable=False),
    sa.Column('attempt', sa.Integer, nullable=False, default=0),
    sa.Column('failures', sa.Integer, nullable=False, default=0),
    sa.Column('silent_since', TIME, nullable=False, default=0),
    sa.Column('begun', sa.JSON, nullable=False),
    sa.Column('no_return', sa.Boolean, nullable=False, default=False),
    sa.Column('abort', WORD, nullable=False, default=''),
    sa.Column('deadline', TIME, nullable=False, default=0),
    _text('error'),
    _text('reason'),
    sa.Column('admitted', sa.Boolean, nullable=False, default=False),
    sa.Column('next_wakeup', TIME, index=True),
    sa.Column('created_at', TIME, nullable=False),
    sa.Column('updated_at', TIME, nullable=False),
    sa.Column('looked_at', TIME, nullable=False, default=0),       # when that was asked from whose answer it stands as it does
    sa.Column('finished_at', TIME),
    sa.Index('ix_migration_status_created', 'status', 'created_at'),
    sa.Index('ix_migration_created', 'created_at', 'id'))

#: Who may work on a resource. A row is a lock; the primary key makes it exclusive.
resource_lock = sa.Table(
    'resource_lock', metadata,
    sa.Column('resource', sa.String(80), primary_key=True),
    sa.Column('migration_id', UUID, nullable=False, index=True),
    sa.Column('mode', WORD, nullable=False, default='exclusive'))

#: Room of a pool that a workflow was promised when it was accepted, in bytes.
reservation = sa.Table(
    'reservation', metadata,
    sa.Column('migration_id', UUID, primary_key=True),
    sa.Column('host', WORD, nullable=False),
    sa.Column('backend', WORD, nullable=False),
    sa.Column('pool', WORD, nullable=False),
    sa.Column('bytes', sa.BigInteger, nullable=False))

#: A cleanup that an agent still owes, since it did not answer or could not do it. agent: its kind. tried_by: the agent's
#: process that tried it last, and could not. refused: for its precondition is false. waits_for: another debt, to be settled first.
debt = sa.Table(
    'debt', metadata,
    sa.Column('id', UUID, primary_key=True),
    sa.Column('host', WORD, nullable=False, index=True),
    sa.Column('agent', WORD, nullable=False, default='compute'),
    sa.Column('instance_uuid', UUID, nullable=False, default='', index=True),
    sa.Column('volume_id', UUID, nullable=False, default='', index=True),
    sa.Column('migration_id', UUID, nullable=False, index=True),
    sa.Column('waits_for', UUID, nullable=False, default=''),
    sa.Column('action', WORD, nullable=False),
    sa.Column('arguments', sa.JSON, nullable=False),
    _text('reason'),
    sa.Column('refused', sa.Boolean, nullable=False, default=False),
    sa.Column('tried_by', UUID, nullable=False, default=''),
    sa.Column('attempt', sa.Integer, nullable=False, default=1),
    sa.Column('next_wakeup', TIME, nullable=False),
    sa.Column('created_at', TIME, nullable=False),
    sa.Column('paid_at', TIME),
    sa.Column('written_off_at', TIME),
    sa.Column('written_off_by', sa.String(128), nullable=False, default=''),
    _text('written_off_why'))

#: What is still to be done: neither paid nor written off.
OPEN_DEBT = sa.and_(debt.c.paid_at.is_(None), debt.c.written_off_at.is_(None))

_earlier = debt.alias('earlier')
#: Of these, what can be done now: what does not wait for another debt that is still open.
PAYABLE_DEBT = sa.and_(OPEN_DEBT, ~sa.select(_earlier.c.id).where(
    _earlier.c.id == debt.c.waits_for, _earlier.c.paid_at.is_(None), _earlier.c.written_off_at.is_(None)).correlate(debt).exists())

#: Who attested that a host is off, for the sake of one migration, and what was last known of the host. void_at: it answered after all.
attestation = sa.Table(
    'attestation', metadata,
    sa.Column('id', UUID, primary_key=True),
    sa.Column('migration_id', UUID, nullable=False, index=True),
    sa.Column('host', WORD, nullable=False),
    sa.Column('process_id', UUID, nullable=False, default=''),
    sa.Column('host_boot_id', UUID, nullable=False, default=''),
    sa.Column('last_seen', TIME, nullable=False, default=0),
    sa.Column('user', sa.String(128), nullable=False, default=''),
    sa.Column('request_id', sa.String(128), nullable=False, default=''),
    sa.Column('at', TIME, nullable=False),
    sa.Column('void_at', TIME))

#: What happened, append only.
event = sa.Table(
    'event', metadata,
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer, 'sqlite'), primary_key=True, autoincrement=True),
    sa.Column('migration_id', UUID, nullable=False, index=True),
    sa.Column('at', TIME, nullable=False),
    sa.Column('status', WORD, nullable=False),
    sa.Column('step', WORD, nullable=False, default=''),
    sa.Column('what', WORD, nullable=False),
    _text('reason'),
    sa.Column('user', sa.String(128), nullable=False, default=''),
    sa.Column('request_id', sa.String(128), nullable=False, default=''))

#: One agent. former_process_id: of the process before this one. places: migrations that it takes part in now, a guarded counter.
#: facts: what it says of its host; of a volume agent, its backends.
service = sa.Table(
    'service', metadata,
    sa.Column('kind', WORD, primary_key=True, default='compute'),
    sa.Column('host', WORD, primary_key=True),
    sa.Column('process_id', UUID, nullable=False, default=''),
    sa.Column('former_process_id', UUID, nullable=False, default=''),
    sa.Column('host_boot_id', UUID, nullable=False, default=''),
    sa.Column('sequence', sa.BigInteger, nullable=False, default=0),
    sa.Column('monotonic', sa.Double, nullable=False, default=0.0),
    sa.Column('last_seen', TIME, nullable=False),
    sa.Column('rpc_version', WORD, nullable=False, default=''),
    sa.Column('draining', sa.Boolean, nullable=False, default=False),
    sa.Column('enabled', sa.Boolean, nullable=False, default=True),
    sa.Column('disabled_reason', sa.String(255), nullable=False, default=''),
    sa.Column('facts', sa.JSON, nullable=False),
    sa.Column('places', sa.Integer, nullable=False, default=0),
    # A process that is heard of beside the present one, see conductor.rivals.
    sa.Column('rival_process_id', UUID, nullable=False, default=''),
    sa.Column('rival_monotonic', sa.Double, nullable=False, default=0.0),
    sa.Column('rival_since', TIME, nullable=False, default=0),
    sa.Column('rival_seen', TIME, nullable=False, default=0))

#: The catalogue: every guest that a host has told of. Fed by heartbeats and by workflows, never by hand.
instance = sa.Table(
    'instance', metadata,
    sa.Column('uuid', UUID, primary_key=True),
    sa.Column('name', sa.String(128), nullable=False, index=True),
    sa.Column('host', WORD, nullable=False, index=True),
    sa.Column('state', WORD, nullable=False),
    sa.Column('memory_mib', sa.Integer, nullable=False, default=0),
    sa.Column('vcpus', sa.Integer, nullable=False, default=0),
    sa.Column('disks', sa.JSON, nullable=False),
    sa.Column('boot_files', sa.JSON, nullable=False),
    sa.Column('managed', sa.Boolean, nullable=False, default=False),
    # What its host has to say of it, in words.
    _text('note'),
    # Another host that tells of the guest, and in which state it has it there; '' when there is none.
    sa.Column('sighted_host', WORD, nullable=False, default=''),
    sa.Column('sighted_state', WORD, nullable=False, default=''),
    sa.Column('updated_at', TIME, nullable=False))

#: The volumes that were made by request. The id never changes; where the data is does: host, backend, pool and lun, and the locator
#: that the backend's driver knows it by. migration_status: of the last migration. error: why the status is what it is, in words.
volume = sa.Table(
    'volume', metadata,
    sa.Column('id', UUID, primary_key=True),
    sa.Column('name', sa.String(128), nullable=False, index=True),
    sa.Column('size', sa.BigInteger, nullable=False),
    sa.Column('type', WORD, nullable=False, default=''),
    sa.Column('multiattach', sa.Boolean, nullable=False, default=False),
    sa.Column('host', WORD, nullable=False, index=True),
    sa.Column('backend', WORD, nullable=False),
    sa.Column('pool', WORD, nullable=False),
    sa.Column('lun', sa.String(128), nullable=False),
    sa.Column('locator', sa.JSON, nullable=False),
    sa.Column('status', WORD, nullable=False),
    sa.Column('migration_status', WORD, nullable=False, default='none'),
    _text('error'),
    sa.Column('created_at', TIME, nullable=False),
    sa.Column('updated_at', TIME, nullable=False))

#: Which guest has which volume, or is about to. host: the guest's. connection: how the guest reaches the export.
attachment = sa.Table(
    'attachment', metadata,
    sa.Column('id', UUID, primary_key=True),
    sa.Column('volume_id', UUID, nullable=False),
    sa.Column('instance_uuid', UUID, nullable=False, index=True),
    sa.Column('host', WORD, nullable=False),
    sa.Column('target', WORD, nullable=False, default=''),
    sa.Column('read_only', sa.Boolean, nullable=False, default=False),
    sa.Column('status', WORD, nullable=False),
    sa.Column('connection', sa.JSON, nullable=False),
    sa.Column('created_at', TIME, nullable=False),
    sa.Column('updated_at', TIME, nullable=False),
    sa.UniqueConstraint('volume_id', 'instance_uuid'))
