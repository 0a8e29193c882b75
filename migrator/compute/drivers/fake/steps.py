"""What the steps of a live migration do to the simulated world.

Every function works within one write transaction, as host `host` at time `now`, and returns its answer and whether it changed
anything; an error rolls back whatever it did. Preconditions are checked here, at the moment of acting.
"""
from migrator import exceptions
from migrator.compute.drivers.fake import guests, jobs, simulation
from migrator.states import GuestState, PauseReason

SCHEME = 'fake://'


def pre_live_migration(db, host, plan, now):
    """Make the disks that will be copied, marked with the migration."""
    owner = guests.BY_MIGRATION + plan.migration_id
    row = guests.get(db, host, plan.instance_uuid)
    if row is not None and not (row['state'] == GuestState.INCOMING and row['migration'] == plan.migration_id):
        raise exceptions.DestinationNotEmpty(f'{host} has a guest {plan.instance_uuid} already, which is {row["state"]}')
    changed = False
    for disk in copied(plan):
        if guests.identity(db, host, disk.directory) is None:
            raise exceptions.DriverError(f'{host} has no storage directory {disk.directory}')
        if disk.backing and not guests.image_found(db, host, disk.backing):
            raise exceptions.DriverError(f'the backing file {disk.backing} is not at {host}')
    strangers = [f['name'] for f in in_copied_directories(db, host, plan) if f['owner'] != owner]
    if strangers:
        raise exceptions.DestinationNotEmpty(
            f'{host} has files of {plan.instance_uuid} that this migration did not make: {", ".join(strangers)}')
    for disk in copied(plan):
        if guests.file_of(db, host, plan.instance_uuid, disk) is None:
            guests.make_file(db, host, plan.instance_uuid, disk, owner, complete=0)
            changed = True
    return {'disks': [d.path for d in copied(plan)]}, changed


def copied(plan):
    """The plan's disks that are copied."""
    return [d for d in plan.disks if d.target in plan.copy]


def in_copied_directories(db, host, plan):
    """Files of the guest at a host, in directories out of or into which disks are copied."""
    directories = {d.directory for d in copied(plan)}
    return [f for f in guests.files_of(db, host, plan.instance_uuid) if f['directory'] in directories]


def start_job(db, host, plan, conf, history, now):
    """Begin the copy, or find the job of the same migration; returns the job's id. The destination is the connection's host."""
    uuid, row = plan.instance_uuid, guests.get(db, host, plan.instance_uuid)
    job = jobs.active(db, uuid)
    if job is not None:
        if job['migration'] != plan.migration_id:
            raise exceptions.DriverError(f'another migration job of {uuid} is active')
        return job['id']
    if row is None:
        return _finished_job(db, plan)
    if row['state'] != GuestState.RUNNING and (row['state'], row['reason']) != (GuestState.PAUSED, PauseReason.USER):
        raise exceptions.DriverError(f'domain {uuid} is not running: {row["state"]} {row["reason"]}'.rstrip())
    destination = _destination(db, host, plan)
    _check_destination(db, host, destination, plan, row)
    bandwidth = min(conf.bandwidth_mib, plan.bandwidth_mib or conf.bandwidth_mib) * guests.MIB
    copy = simulation.Copy(memory=row['memory_mib'] * guests.MIB, disk=sum(d.size for d in copied(plan)), bandwidth=bandwidth,
                           dirty_rate=row['dirty_rate'] if row['state'] == GuestState.RUNNING else 0, minimum=conf.migration_seconds)
    return jobs.start(db, plan, copy, destination, history, now)


def _finished_job(db, plan):
    """A repeated call whose guest has left by this very migration: its job tells the outcome again."""
    job = db.execute("SELECT id FROM job WHERE migration = ? AND uuid = ? AND state = 'completed'",
                     (plan.migration_id, plan.instance_uuid)).fetchone()
    if job is None:
        raise exceptions.InstanceNotFound(f'no guest {plan.instance_uuid} at {plan.source_host}')
    return job['id']


def _destination(db, host, plan):
    name = plan.connection_uri.removeprefix(SCHEME)
    if not plan.connection_uri.startswith(SCHEME) or name == host:
        raise exceptions.DriverError(f'{plan.connection_uri!r} is no connection to another simulated host')
    row = db.execute('SELECT down FROM host WHERE name = ?', (name,)).fetchone()
    if row is None or row['down']:
        raise exceptions.DriverError(f'unable to connect to {plan.connection_uri}')
    return name


def _check_destination(db, host, destination, plan, row):
    """What the destination's hypervisor would refuse."""
    if guests.get(db, destination, plan.instance_uuid) is not None:
        raise exceptions.DriverError(f'{destination} has a guest {plan.instance_uuid} already')
    if memory_free(db, destination) < row['memory_mib']:
        raise exceptions.DriverError(f'{destination} has no {row["memory_mib"]} MiB of memory for {plan.instance_uuid}')
    for disk in guests.local(guests.disks_of(row['disks'])):
        there = guests.file_of(db, destination, plan.instance_uuid, disk)
        if there is None:
            raise exceptions.DriverError(f'cannot access {disk.path} at {destination}: it does not exist')
        shared = guests.identity(db, host, disk.directory) == there['identity']
        if shared == (disk.target in plan.copy):
            raise exceptions.DriverError(f'{disk.path} is {"shared" if shared else "not shared"} between {host} and {destination}')


def memory_free(db, host):
    """MiB that a host can give to new guests."""
    return db.execute("SELECT memory_mib - (SELECT coalesce(sum(memory_mib), 0) FROM guest WHERE host = ? AND state != 'off') AS free "
                      'FROM host WHERE name = ?', (host, host)).fetchone()['free']


def post_live_migration_at_destination(db, host, plan, now):
    """The arrived guest's files are its own from now on, also if it has stopped since."""
    row = guests.get(db, host, plan.instance_uuid)
    if row is None or row['state'] == GuestState.INCOMING:
        raise exceptions.PreconditionFailed(f'{plan.instance_uuid} has not arrived at {host}: {row["state"] if row else "absent"}')
    owner = guests.MADE if row['managed'] else guests.FOUND
    changed = db.execute('UPDATE file SET owner = ? WHERE uuid = ? AND owner = ?',
                         (owner, plan.instance_uuid, guests.BY_MIGRATION + plan.migration_id)).rowcount > 0
    changed |= db.execute("UPDATE guest SET persistent = 1, migration = '' WHERE host = ? AND uuid = ? AND migration != ''",
                          (host, plan.instance_uuid)).rowcount > 0
    return {}, changed


def post_live_migration_at_source(db, host, plan, now):
    """Forget the guest here, and remove the files of the disks that were copied away."""
    uuid, row, changed = plan.instance_uuid, guests.get(db, host, plan.instance_uuid), False
    _no_job(db, uuid)
    if row is not None:
        by_hand_over = row['state'] == GuestState.PAUSED and row['reason'] == PauseReason.MIGRATION
        if row['state'] != GuestState.OFF and not by_hand_over:
            raise exceptions.PreconditionFailed(f'{uuid} is {row["state"]} at {host}')
        changed = db.execute('DELETE FROM guest WHERE host = ? AND uuid = ?', (host, uuid)).rowcount > 0
    for disk in copied(plan):
        file = guests.file_of(db, host, uuid, disk)
        if file is not None:
            guests.remove_file(db, file, now)
            changed = True
    return {}, changed


def rollback_live_migration_at_source(db, host, plan, now):
    """Resume a guest that a hand-over left paused."""
    row = guests.get(db, host, plan.instance_uuid)
    if row is None or row['state'] == GuestState.INCOMING:
        raise exceptions.PreconditionFailed(f'{plan.instance_uuid} is {row["state"] if row else "absent"} at {host}')
    if row['state'] != GuestState.PAUSED or row['reason'] != PauseReason.MIGRATION:
        return {}, False
    _no_job(db, plan.instance_uuid)
    guests.set_state(db, host, plan.instance_uuid, GuestState.RUNNING, PauseReason.NONE, now)
    return {}, True


def rollback_live_migration_at_destination(db, host, plan, now):
    """Remove an incoming guest that never ran, with its job, and the files that this migration made."""
    uuid, row, changed = plan.instance_uuid, guests.get(db, host, plan.instance_uuid), False
    if row is not None:
        if row['state'] != GuestState.INCOMING:
            raise exceptions.PreconditionFailed(f'{uuid} has run at {host}: it is {row["state"]}')
        job = jobs.active(db, uuid)
        if job is not None:
            jobs.fail(db, job, f'the incoming guest was destroyed at {host}', now)
        db.execute('DELETE FROM guest WHERE host = ? AND uuid = ?', (host, uuid))
        changed = True
    for file in guests.files_of(db, host, uuid):
        if file['owner'] == guests.BY_MIGRATION + plan.migration_id:
            guests.remove_file(db, file, now)
            changed = True
    return {}, changed


def _no_job(db, uuid):
    if jobs.active(db, uuid) is not None:
        raise exceptions.PreconditionFailed(f'a migration job of {uuid} is active')
