"""The first schema

Revision: 0001, after nothing
"""
import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None

#: Names and ids differ by case, and words are of any script, whatever the server's defaults are.
MYSQL = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4', 'mysql_collate': 'utf8mb4_bin'}


def upgrade():
    """Make all tables."""
    op.create_table(
        'attestation',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('migration_id', sa.String(length=36), nullable=False),
        sa.Column('host', sa.String(length=64), nullable=False),
        sa.Column('process_id', sa.String(length=36), nullable=False),
        sa.Column('host_boot_id', sa.String(length=36), nullable=False),
        sa.Column('last_seen', sa.BigInteger(), nullable=False),
        sa.Column('user', sa.String(length=128), nullable=False),
        sa.Column('request_id', sa.String(length=128), nullable=False),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.Column('void_at', sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_attestation')), **MYSQL)
    with op.batch_alter_table('attestation', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_attestation_migration_id'), ['migration_id'], unique=False)

    op.create_table(
        'attachment',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('volume_id', sa.String(length=36), nullable=False),
        sa.Column('instance_uuid', sa.String(length=36), nullable=False),
        sa.Column('host', sa.String(length=64), nullable=False),
        sa.Column('target', sa.String(length=64), nullable=False),
        sa.Column('read_only', sa.Boolean(), nullable=False),
        sa.Column('status', sa.String(length=64), nullable=False),
        sa.Column('connection', sa.JSON(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('updated_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_attachment')),
        sa.UniqueConstraint('volume_id', 'instance_uuid', name=op.f('uq_attachment_volume_id_instance_uuid')), **MYSQL)
    with op.batch_alter_table('attachment', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_attachment_instance_uuid'), ['instance_uuid'], unique=False)

    op.create_table(
        'debt',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('host', sa.String(length=64), nullable=False),
        sa.Column('agent', sa.String(length=64), nullable=False),
        sa.Column('instance_uuid', sa.String(length=36), nullable=False),
        sa.Column('volume_id', sa.String(length=36), nullable=False),
        sa.Column('migration_id', sa.String(length=36), nullable=False),
        sa.Column('waits_for', sa.String(length=36), nullable=False),
        sa.Column('action', sa.String(length=64), nullable=False),
        sa.Column('arguments', sa.JSON(), nullable=False),
        sa.Column('reason', sa.Text(), nullable=False),
        sa.Column('refused', sa.Boolean(), nullable=False),
        sa.Column('tried_by', sa.String(length=36), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column('next_wakeup', sa.BigInteger(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('paid_at', sa.BigInteger(), nullable=True),
        sa.Column('written_off_at', sa.BigInteger(), nullable=True),
        sa.Column('written_off_by', sa.String(length=128), nullable=False),
        sa.Column('written_off_why', sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_debt')), **MYSQL)
    with op.batch_alter_table('debt', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_debt_host'), ['host'], unique=False)
        batch_op.create_index(batch_op.f('ix_debt_instance_uuid'), ['instance_uuid'], unique=False)
        batch_op.create_index(batch_op.f('ix_debt_migration_id'), ['migration_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_debt_volume_id'), ['volume_id'], unique=False)

    op.create_table(
        'event',
        sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
        sa.Column('migration_id', sa.String(length=36), nullable=False),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.Column('status', sa.String(length=64), nullable=False),
        sa.Column('step', sa.String(length=64), nullable=False),
        sa.Column('what', sa.String(length=64), nullable=False),
        sa.Column('reason', sa.Text(), nullable=False),
        sa.Column('user', sa.String(length=128), nullable=False),
        sa.Column('request_id', sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_event')), **MYSQL)
    with op.batch_alter_table('event', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_event_migration_id'), ['migration_id'], unique=False)

    op.create_table(
        'instance',
        sa.Column('uuid', sa.String(length=36), nullable=False),
        sa.Column('name', sa.String(length=128), nullable=False),
        sa.Column('host', sa.String(length=64), nullable=False),
        sa.Column('state', sa.String(length=64), nullable=False),
        sa.Column('memory_mib', sa.Integer(), nullable=False),
        sa.Column('vcpus', sa.Integer(), nullable=False),
        sa.Column('disks', sa.JSON(), nullable=False),
        sa.Column('boot_files', sa.JSON(), nullable=False),
        sa.Column('managed', sa.Boolean(), nullable=False),
        sa.Column('note', sa.Text(), nullable=False),
        sa.Column('sighted_host', sa.String(length=64), nullable=False),
        sa.Column('sighted_state', sa.String(length=64), nullable=False),
        sa.Column('updated_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('uuid', name=op.f('pk_instance')), **MYSQL)
    with op.batch_alter_table('instance', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_instance_host'), ['host'], unique=False)
        batch_op.create_index(batch_op.f('ix_instance_name'), ['name'], unique=False)

    op.create_table(
        'migration',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('kind', sa.String(length=64), nullable=False),
        sa.Column('resource', sa.String(length=64), nullable=False),
        sa.Column('instance_uuid', sa.String(length=36), nullable=False),
        sa.Column('instance_name', sa.String(length=128), nullable=False),
        sa.Column('volume_id', sa.String(length=36), nullable=False),
        sa.Column('volume_name', sa.String(length=128), nullable=False),
        sa.Column('source_host', sa.String(length=64), nullable=False),
        sa.Column('source_agent', sa.String(length=64), nullable=False),
        sa.Column('destination_host', sa.String(length=64), nullable=False),
        sa.Column('destination_agent', sa.String(length=64), nullable=False),
        sa.Column('parent_id', sa.String(length=36), nullable=True),
        sa.Column('request_id', sa.String(length=128), nullable=False),
        sa.Column('user', sa.String(length=128), nullable=False),
        sa.Column('request', sa.JSON(), nullable=False),
        sa.Column('policy', sa.JSON(), nullable=False),
        sa.Column('plan', sa.JSON(), nullable=False),
        sa.Column('facts', sa.JSON(), nullable=False),
        sa.Column('progress', sa.JSON(), nullable=False),
        sa.Column('epoch', sa.BigInteger(), nullable=False),
        sa.Column('status', sa.String(length=64), nullable=False),
        sa.Column('phase', sa.String(length=64), nullable=False),
        sa.Column('step', sa.String(length=64), nullable=False),
        sa.Column('direction', sa.String(length=64), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column('failures', sa.Integer(), nullable=False),
        sa.Column('silent_since', sa.BigInteger(), nullable=False),
        sa.Column('begun', sa.JSON(), nullable=False),
        sa.Column('no_return', sa.Boolean(), nullable=False),
        sa.Column('abort', sa.String(length=64), nullable=False),
        sa.Column('deadline', sa.BigInteger(), nullable=False),
        sa.Column('error', sa.Text(), nullable=False),
        sa.Column('reason', sa.Text(), nullable=False),
        sa.Column('admitted', sa.Boolean(), nullable=False),
        sa.Column('next_wakeup', sa.BigInteger(), nullable=True),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('updated_at', sa.BigInteger(), nullable=False),
        sa.Column('looked_at', sa.BigInteger(), nullable=False),
        sa.Column('finished_at', sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_migration')),
        sa.UniqueConstraint('request_id', name=op.f('uq_migration_request_id')), **MYSQL)
    with op.batch_alter_table('migration', schema=None) as batch_op:
        batch_op.create_index('ix_migration_created', ['created_at', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_migration_instance_uuid'), ['instance_uuid'], unique=False)
        batch_op.create_index(batch_op.f('ix_migration_next_wakeup'), ['next_wakeup'], unique=False)
        batch_op.create_index('ix_migration_status_created', ['status', 'created_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_migration_volume_id'), ['volume_id'], unique=False)

    op.create_table(
        'reservation',
        sa.Column('migration_id', sa.String(length=36), nullable=False),
        sa.Column('host', sa.String(length=64), nullable=False),
        sa.Column('backend', sa.String(length=64), nullable=False),
        sa.Column('pool', sa.String(length=64), nullable=False),
        sa.Column('bytes', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('migration_id', name=op.f('pk_reservation')), **MYSQL)

    op.create_table(
        'resource_lock',
        sa.Column('resource', sa.String(length=80), nullable=False),
        sa.Column('migration_id', sa.String(length=36), nullable=False),
        sa.Column('mode', sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint('resource', name=op.f('pk_resource_lock')), **MYSQL)
    with op.batch_alter_table('resource_lock', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_resource_lock_migration_id'), ['migration_id'], unique=False)

    op.create_table(
        'service',
        sa.Column('kind', sa.String(length=64), nullable=False),
        sa.Column('host', sa.String(length=64), nullable=False),
        sa.Column('process_id', sa.String(length=36), nullable=False),
        sa.Column('former_process_id', sa.String(length=36), nullable=False),
        sa.Column('host_boot_id', sa.String(length=36), nullable=False),
        sa.Column('sequence', sa.BigInteger(), nullable=False),
        sa.Column('monotonic', sa.Double(), nullable=False),
        sa.Column('last_seen', sa.BigInteger(), nullable=False),
        sa.Column('rpc_version', sa.String(length=64), nullable=False),
        sa.Column('draining', sa.Boolean(), nullable=False),
        sa.Column('enabled', sa.Boolean(), nullable=False),
        sa.Column('disabled_reason', sa.String(length=255), nullable=False),
        sa.Column('facts', sa.JSON(), nullable=False),
        sa.Column('places', sa.Integer(), nullable=False),
        sa.Column('rival_process_id', sa.String(length=36), nullable=False),
        sa.Column('rival_monotonic', sa.Double(), nullable=False),
        sa.Column('rival_since', sa.BigInteger(), nullable=False),
        sa.Column('rival_seen', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('kind', 'host', name=op.f('pk_service')), **MYSQL)

    op.create_table(
        'volume',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('name', sa.String(length=128), nullable=False),
        sa.Column('size', sa.BigInteger(), nullable=False),
        sa.Column('type', sa.String(length=64), nullable=False),
        sa.Column('multiattach', sa.Boolean(), nullable=False),
        sa.Column('host', sa.String(length=64), nullable=False),
        sa.Column('backend', sa.String(length=64), nullable=False),
        sa.Column('pool', sa.String(length=64), nullable=False),
        sa.Column('lun', sa.String(length=128), nullable=False),
        sa.Column('locator', sa.JSON(), nullable=False),
        sa.Column('status', sa.String(length=64), nullable=False),
        sa.Column('migration_status', sa.String(length=64), nullable=False),
        sa.Column('error', sa.Text(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('updated_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_volume')), **MYSQL)
    with op.batch_alter_table('volume', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_volume_host'), ['host'], unique=False)
        batch_op.create_index(batch_op.f('ix_volume_name'), ['name'], unique=False)
