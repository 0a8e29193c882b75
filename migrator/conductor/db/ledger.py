"""Statements on workflows: the migration row with its cursor, locks and events.

Every function takes an open transaction. The number of statements of each is part of its contract, for a migration's cost is.
"""
import dataclasses
import types

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.cursor import AbortCause, Cursor, Direction, Phase, Policy
from migrator.conductor.db.database import now_ms
from migrator.conductor.db.tables import attestation, debt, event, migration, reservation, resource_lock, service
from migrator.states import TERMINAL, AgentKind, Status

TERMINAL_WORDS = [s.value for s in TERMINAL]
LIVE = migration.c.status.not_in(TERMINAL_WORDS)
LEGAL_REASON = 4000


class EpochConflict(Exception):
    """Another conductor moved the workflow since it was read; read it again."""


@dataclasses.dataclass(frozen=True)
class Agent:
    """Where an operation is addressed: the agent's process, what its clock shows about now, and its host's places that are taken.

    dead: somebody has attested that the host is off, and it was not heard of since.
    """

    process_id: str
    monotonic: float
    places: int = 0
    dead: bool = False

    def later(self, seconds):
        """The same after a while."""
        return dataclasses.replace(self, monotonic=self.monotonic + seconds) if self.process_id else self


@dataclasses.dataclass(frozen=True)
class Record:
    """One migration as read, with the database's time and the addresses of its agents."""

    row: object
    now: int
    cursor: Cursor
    policy: Policy
    source: Agent
    destination: Agent

    @property
    def op_id(self):
        """The operation that the cursor stands at."""
        return operation_id(self.row.id, self.cursor)

    def later(self, seconds):
        """The same after a while, for those who wrote it last and therefore need not read it: its epoch tells if that is still so."""
        return dataclasses.replace(self, now=self.now + int(seconds * 1000), source=self.source.later(seconds),
                                   destination=self.destination.later(seconds))


def operation_id(owner, cursor):
    """Name an operation: owner/step/attempt, the same at each repetition."""
    return f'{owner}/{cursor.step}/{cursor.attempt}'


def attested(agent):
    """Tell, within a query on migrations, whether a host counts as off. agent: its service row; no agent of the host must have been heard
    of since.

    An attestation that lies ahead was made before the clock was set back. Then times do not tell what came since, but whether it is still
    the same heartbeat that was the last one.
    """
    other = service.alias()
    heard = sa.exists().where(other.c.host == attestation.c.host, other.c.kind != agent.c.kind,
                              other.c.last_seen > attestation.c.at).correlate(attestation, agent)
    return sa.select(sa.func.count()).where(
        attestation.c.migration_id == migration.c.id, attestation.c.host == agent.c.host, attestation.c.void_at.is_(None), ~heard,
        sa.or_(sa.and_(attestation.c.at >= agent.c.last_seen, attestation.c.at <= now_ms()),
               attestation.c.last_seen == agent.c.last_seen)).correlate(migration, agent).scalar_subquery()


def _loading():
    src, dst = service.alias('src'), service.alias('dst')
    return (
        sa.select(migration, now_ms().label('now'), src.c.process_id.label('src_process'), src.c.monotonic.label('src_monotonic'),
                  src.c.last_seen.label('src_seen'), src.c.places.label('src_places'), dst.c.process_id.label('dst_process'),
                  dst.c.monotonic.label('dst_monotonic'),
                  dst.c.last_seen.label('dst_seen'), dst.c.places.label('dst_places'), attested(src).label('src_dead'),
                  attested(dst).label('dst_dead'))
        .outerjoin(src, sa.and_(src.c.host == migration.c.source_host, src.c.kind == migration.c.source_agent))
        .outerjoin(dst, sa.and_(dst.c.host == migration.c.destination_host, dst.c.kind == migration.c.destination_agent))
        .where(migration.c.id == sa.bindparam('wanted')))


#: What `load` asks. It is asked at each transition, and putting it together takes as long as running it.
_LOAD = _loading()


def load(tx, migration_id):
    """Read one migration with the database's time and both agents. One statement. Raises MigrationNotFound."""
    row = tx.execute(_LOAD, {'wanted': migration_id}).first()
    if row is None:
        raise exceptions.MigrationNotFound(f'there is no migration {migration_id}')
    return Record(row, row.now, cursor_of(row), Policy(**row.policy),
                  address(row.now, row.src_process, row.src_monotonic, row.src_seen, row.src_places, bool(row.src_dead)),
                  address(row.now, row.dst_process, row.dst_monotonic, row.dst_seen, row.dst_places, bool(row.dst_dead)))


def address(now, process_id, monotonic, last_seen, places, dead=False):
    """Reckon an agent's clock from its last heartbeat. A late heartbeat makes the result early, hence a not_after strict."""
    if not process_id:
        return Agent('', 0.0, dead=dead)
    return Agent(process_id, monotonic + max(0, now - last_seen) / 1000, places, dead)


def cursor_of(row):
    """Read the cursor out of a migration row."""
    return Cursor(Status(row.status), Phase(row.phase), row.step, Direction(row.direction), row.attempt, row.failures, row.silent_since,
                  tuple(row.begun), bool(row.no_return), AbortCause(row.abort), row.deadline, row.error)


def cursor_values(cursor):
    """Turn a cursor into column values."""
    values = {f.name: _plain(getattr(cursor, f.name)) for f in dataclasses.fields(cursor)}
    return {**values, 'error': cursor.error[:LEGAL_REASON]}


def _plain(value):
    return list(value) if isinstance(value, tuple) else value.value if hasattr(value, 'value') else value


def store(tx, record, cursor, reason, wake_at, **values):
    """Move a workflow on: a compare-and-swap on its epoch. One statement. Raises EpochConflict if it was moved meanwhile.

    wake_at: milliseconds of the database's clock, or None when it has ended. Returns the Record as it is stored now.
    """
    row = record.row
    values.update(cursor_values(cursor), epoch=row.epoch + 1, next_wakeup=wake_at, updated_at=record.now, reason=reason[:LEGAL_REASON])
    changed = tx.execute(sa.update(migration).where(migration.c.id == row.id, migration.c.epoch == row.epoch).values(**values))
    if changed.rowcount != 1:
        raise EpochConflict(row.id)
    known = row._mapping if hasattr(row, '_mapping') else vars(row)
    policy = Policy(**values['policy']) if 'policy' in values else record.policy
    return dataclasses.replace(record, row=types.SimpleNamespace(**{**known, **values}), cursor=cursor, policy=policy)


def change_plan(tx, record, plan):
    """Give the later steps of a workflow another plan, by the same compare-and-swap as `store`, which is then overtaken. One statement.

    plan: as plain values. Raises EpochConflict.
    """
    row = record.row
    done = tx.execute(sa.update(migration).where(migration.c.id == row.id, migration.c.epoch == row.epoch).values(
        plan=plan, epoch=row.epoch + 1, updated_at=record.now))
    if done.rowcount != 1:
        raise EpochConflict(row.id)


def insert(tx, values):
    """Write a new migration. One statement. Raises DBDuplicateEntry for a request_id that exists."""
    tx.execute(sa.insert(migration).values(**values))


def by_request(tx, request_id):
    """Find the migration that an earlier delivery of the same request made, or None. One statement."""
    return tx.execute(sa.select(migration).where(migration.c.request_id == request_id)).first()


def latest(tx, instance_uuid):
    """Give the id of a guest's last workflow, or None. One statement."""
    return tx.execute(sa.select(migration.c.id).where(migration.c.instance_uuid == instance_uuid)
                      .order_by(migration.c.created_at.desc()).limit(1)).scalar()


def latest_kind(tx, instance_uuid):
    """Name the kind of a guest's last workflow, or ''. One statement."""
    return tx.execute(sa.select(migration.c.kind).where(migration.c.instance_uuid == instance_uuid)
                      .order_by(migration.c.created_at.desc()).limit(1)).scalar() or ''


def lock(tx, resource, migration_id):
    """Take an exclusive lock. One statement. Raises DBDuplicateEntry if it is held."""
    tx.execute(sa.insert(resource_lock).values(resource=resource, migration_id=migration_id, mode='exclusive'))


def lock_all(tx, resources, migration_id):
    """Take several exclusive locks, in the order of their names, so that two workflows cannot deadlock. One statement for each.

    Raises DBDuplicateEntry if one of them is held; the transaction then keeps none.
    """
    for resource in sorted(set(resources)):
        lock(tx, resource, migration_id)


def unlock_all(tx, migration_id):
    """Release every lock of a workflow. One statement."""
    tx.execute(sa.delete(resource_lock).where(resource_lock.c.migration_id == migration_id))


def lock_holder(tx, resource):
    """Give the row of the migration that holds a resource, or None."""
    return tx.execute(sa.select(migration.c.id, migration.c.kind).join(resource_lock, resource_lock.c.migration_id == migration.c.id)
                      .where(resource_lock.c.resource == resource)).first()


def note(tx, migration_id, at, cursor, what, reason, user='', request_id=''):
    """Append to the timeline. One statement."""
    tx.execute(sa.insert(event).values(migration_id=migration_id, at=at, status=cursor.status.value, step=cursor.step, what=what,
                                       reason=reason[:LEGAL_REASON], user=user, request_id=request_id))


def due(tx, limit, horizon=None):
    """Name the workflows whose time has come, longest first. One statement.

    horizon: seconds that none waits for; one whose time lies further ahead is due too, for the clock was set back. None: there is none.
    """
    return tx.execute(sa.select(migration.c.id).where(come(migration.c.next_wakeup, horizon))
                      .order_by(migration.c.next_wakeup).limit(limit)).scalars().all()


def come(wakeup, horizon):
    """Tell, within a query, whether the time in a column has come. horizon: see due."""
    now = now_ms()
    return wakeup <= now if horizon is None else sa.or_(wakeup <= now, wakeup > now + int(horizon * 1000))


def make_due(tx, migrations):
    """Let others take these workflows up at once. One statement."""
    tx.execute(sa.update(migration).where(migration.c.id.in_(migrations), LIVE).values(next_wakeup=now_ms()))


def queued(tx, hosts, limit, kind=AgentKind.COMPUTE):
    """Name queued migrations between agents of one kind that touch one of the hosts, oldest first. One statement."""
    return tx.execute(sa.select(migration.c.id).where(
        migration.c.status == Status.QUEUED.value, migration.c.phase == Phase.QUEUED.value,
        migration.c.source_agent == AgentKind(kind).value,
        sa.or_(migration.c.source_host.in_(hosts), migration.c.destination_host.in_(hosts)))
        .order_by(migration.c.created_at).limit(limit)).scalars().all()


def not_live(tx, migrations):
    """Name those of the migrations that have ended, and those that there are not: (ended, unknown). One statement."""
    rows = tx.execute(sa.select(migration.c.id, migration.c.status).where(migration.c.id.in_(migrations)))
    found = {row.id: row.status for row in rows}
    return sorted(known for known, status in found.items() if status in TERMINAL_WORDS), sorted(set(migrations) - set(found))


def ended_since(tx, instances, moment):
    """Name those of the guests on which a workflow ended, or a debt was paid, after `moment`. Two statements for each 500.

    An end that lies ahead was written before the clock was set back, and is no news.
    """
    found = set()
    for start in range(0, len(instances), 500):
        some = instances[start:start + 500]
        for table, end in ((migration, migration.c.finished_at), (debt, debt.c.paid_at)):
            found.update(tx.execute(sa.select(table.c.instance_uuid).where(
                table.c.instance_uuid.in_(some), end > moment, end <= now_ms() + 1000)).scalars())
    return found


def wake_host(tx, host, kind=AgentKind.COMPUTE):
    """An agent is new: look at once at every workflow that waits for it. One statement."""
    kind = AgentKind(kind).value
    tx.execute(sa.update(migration).where(
        LIVE, sa.or_(sa.and_(migration.c.source_host == host, migration.c.source_agent == kind),
                     sa.and_(migration.c.destination_host == host, migration.c.destination_agent == kind)),
        migration.c.phase.in_([p.value for p in (Phase.QUEUED, Phase.CALLING, Phase.OPERATION, Phase.OBSERVING)]))
        .values(next_wakeup=now_ms()))


def progress(tx, host, jobs, quiet=0, kind=AgentKind.COMPUTE):
    """Keep the last progress of migrations that an agent tells of; best effort, outside of their epochs. One statement.

    A guest is moved by its source, a volume by either side. jobs: migration id -> Job (kind volume: Progress) as a dict. quiet:
    milliseconds for which the agent, which tells by this that a job is under way, need not be asked for it. Whatever is due
    sooner stays so: the time limit, an abort that is pending, a silence that only an answer ends, and a workflow that does something
    else by now.
    """
    later = now_ms() + int(quiet)
    running = sa.and_(migration.c.status == Status.RUNNING.value, migration.c.phase == Phase.OPERATION.value, migration.c.abort == '',
                      migration.c.silent_since == 0,
                      sa.or_(migration.c.deadline == 0, migration.c.deadline > later), migration.c.next_wakeup < later)
    told = sa.case({known: sa.literal(jobs[known], sa.JSON()) for known in sorted(jobs)}, value=migration.c.id)
    if tx.dialect.name == 'postgresql':        # to which this is text; the other two store it as it is
        told = sa.cast(told, sa.JSON)
    mine = sa.and_(migration.c.source_host == host, migration.c.source_agent == AgentKind(kind).value)
    if kind == AgentKind.VOLUME:
        mine = sa.or_(mine, sa.and_(migration.c.destination_host == host, migration.c.destination_agent == AgentKind.VOLUME.value))
    tx.execute(sa.update(migration).where(migration.c.id.in_(sorted(jobs)), mine, LIVE).values(
        progress=told, next_wakeup=sa.case((running, later), else_=migration.c.next_wakeup)))


def events(tx, migration_id):
    """Read a timeline. One statement."""
    return tx.execute(sa.select(event).where(event.c.migration_id == migration_id).order_by(event.c.id)).all()


def purge(tx, age):
    """Delete migrations that ended at least `age` milliseconds ago, with their events; debts that are not paid keep theirs alive.

    Those that were written off do so too: the audit tells by them what it finds when the host comes back after all.

    Returns how many migrations went.
    """
    owing = sa.select(debt.c.migration_id).where(debt.c.paid_at.is_(None))
    old = tx.execute(sa.select(migration.c.id).where(
        migration.c.status.in_(TERMINAL_WORDS), migration.c.finished_at <= now_ms() - age, migration.c.id.not_in(owing))).scalars().all()
    for start in range(0, len(old), 500):
        ids = old[start:start + 500]
        for table in (event, debt, attestation, reservation):
            tx.execute(sa.delete(table).where(table.c.migration_id.in_(ids)))
        tx.execute(sa.delete(migration).where(migration.c.id.in_(ids)))
    return len(old)

