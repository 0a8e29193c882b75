"""The steps of a live migration at either host, as libvirt's peer-to-peer migration needs them.

The source's libvirtd drives the job and talks to the destination's by itself; agents never do. A job goes on when the agent dies.
libvirt's call does not say where the guest is when it fails, so nothing here concludes that from an error.
"""
import contextlib
import time

import libvirt

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt import domain_xml, domains, husks, observe
from migrator.compute.drivers.libvirt.connection import has_code, in_words
from migrator.compute.drivers.libvirt.storage import check_uuid
from migrator.states import GuestState, PauseReason

#: The last one: a guest that an I/O error pauses while it is being copied would arrive as if a user had paused it (seen with libvirt 9.0),
#: and nobody would let it go on when its volume answers again. So it stays, and is let go on where it is.
_FLAGS = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
          | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_ABORT_ON_ERROR)
_SAFE_CACHE = ('none', 'directsync')
_STATISTICS = ('downtime_ms', 'elapsed_ms', 'memory_processed', 'disk_processed', 'iteration')
#: Seconds for which a job is waited for to copy. Whoever pauses a guest before that is taken for a user, and it would arrive paused (seen
#: with libvirt 9.0): only then has libvirt noted whether it ran when its migration began.
_COPYING_SECONDS = 10
#: libvirt delivers a job's statistics just before its call returns; after so many seconds they are taken as lost.
_STATISTICS_SECONDS = 2


class Migration:
    """Acts on one host. storage, folders, observer: of the same host."""

    def __init__(self, storage, folders, observer):
        self._storage = storage
        self._folders = folders
        self._observer = observer

    # --- destination, before ---

    def prepare(self, connection, plan):
        """See ComputeDriver.pre_live_migration."""
        uuid = check_uuid(plan.instance_uuid)
        disks = self._folders.copied(plan)
        for disk in disks:
            self._storage.check_new_disk(disk.path, disk.format, disk.size, disk.backing)
        domain = domains.find(connection, uuid)
        if domain is not None and not self._is_incoming(domain, plan):
            raise exceptions.DestinationNotEmpty(f'libvirt has a domain {domain.name()} of this uuid already')
        self._folders.claim_for_migration(plan)
        for disk in disks:
            self._storage.make_disk(disk.path, disk.format, disk.size, disk.backing, disk.backing_format)
        return {'migration_id': plan.migration_id}

    def _is_incoming(self, domain, plan):
        uuid = plan.instance_uuid
        return (self._observer.state(domain, uuid)[0] == GuestState.INCOMING
                and self._observer.incoming_migration(uuid) == plan.migration_id)

    # --- source, the job ---

    def migrate(self, connection, plan, prepared, lasting):
        """See ComputeDriver.live_migration. Must not be repeated. lasting: the LastingCall in which this runs."""
        if prepared.get('migration_id') != plan.migration_id:
            raise exceptions.DriverError('the destination was not prepared for this migration')
        domain = domains.get(connection, check_uuid(plan.instance_uuid))
        if not domain.isActive():
            raise exceptions.DriverError('the guest is not running')
        if domains.job(domain)[0] != domains.NONE:
            raise exceptions.DriverError('a migration or another job of the guest is running already')
        parameters, flags = call(plan, *(domain.XMLDesc(flags | libvirt.VIR_DOMAIN_XML_SECURE) for flags in (
            libvirt.VIR_DOMAIN_XML_MIGRATABLE, libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_INACTIVE)))
        self._folders.forget_held(plan.instance_uuid)  # of an earlier migration, after which someone else resumed the guest
        listener = _Listener(connection, domain, lasting)
        try:
            lasting.begins()
            domain.migrateToURI3(plan.connection_uri, parameters, flags)
            return listener.figures()
        except libvirt.libvirtError as error:
            if has_code(error, libvirt.VIR_ERR_OPERATION_ABORTED):
                # The stream was cut before its end, so the destination never ran the guest, whether or not it was paused here.
                raise exceptions.MigrationAborted(f'the job was aborted: {error.get_error_message()}') from error
            if lasting.handed_over and not lasting.left_behind and self._hold(domain, plan):
                raise in_words(error, 'the migration failed after the hand-over, and the guest is held until it is clear where it may run'
                               ) from error
            raise in_words(error, 'the migration failed') from error
        finally:
            listener.close()

    def _hold(self, domain, plan):
        """Pause a guest that libvirt has resumed here after the hand-over. Returns whether it is held now.

        libvirt resumes it when the destination's answer is lost as well as when it is a refusal, and after a lost answer the guest may
        run there too (its own words in qemuMigrationSrcPerformPeer2Peer3; seen with 9.0). Here nobody can tell which it was.
        What a held guest may do is decided when both hosts were asked: it is resumed by the undo, or removed by the last step.
        """
        try:
            if not domain.isActive() or domains.state(domain)[0] != GuestState.RUNNING:
                return False
            domain.suspend()  # first of all; without the note the pause has a reason that no one knows, which needs an operator
        except libvirt.libvirtError:
            return False  # it went, or libvirtd did: the error of the migration is told, and both hosts are asked in any case
        self._folders.note_held(plan)
        return True

    @staticmethod
    def abort(connection, uuid):
        """See ComputeDriver.abort_live_migration."""
        domain = domains.find(connection, check_uuid(uuid))
        try:
            if domain is None or domains.job(domain)[0] != domains.OUT or domains.state(domain)[1] in (
                    PauseReason.POST_COPY, PauseReason.POST_COPY_FAILED):
                return False
            domain.abortJob()  # libvirt itself refuses it in post-copy, should that begin just now
        except libvirt.libvirtError as error:
            if domains.ended(error):  # the job, or the guest with it, just now
                return False
            raise
        return True

    @staticmethod
    def force_complete(connection, uuid):
        """See ComputeDriver.force_complete_live_migration."""
        domain = domains.find(connection, check_uuid(uuid))
        try:
            if domain is None or not Migration._copies(domain):
                return False
            if domains.state(domain)[0] == GuestState.PAUSED:
                return True
            domain.suspend()
            if domains.state(domain) == (GuestState.PAUSED, PauseReason.USER):
                # The job ended before the pause, so that libvirt takes it for a user's and would never resume it.
                domain.resume()
                return False
        except libvirt.libvirtError as error:
            if domains.ended(error):  # the job, or the guest with it, just now
                return False
            raise
        return True

    @staticmethod
    def _copies(domain):
        """Wait until a job copies the guest; False if there is none, or it does not come to that."""
        deadline = time.monotonic() + _COPYING_SECONDS
        while time.monotonic() < deadline:
            direction, figures = domains.job(domain)
            if direction != domains.OUT:
                return False
            if figures.get(libvirt.VIR_DOMAIN_JOB_MEMORY_TOTAL) or figures.get(libvirt.VIR_DOMAIN_JOB_DISK_TOTAL):
                return True
            concurrency.native_sleep(0.05)
        return False

    # --- after the guest has moved ---

    def finish_at_destination(self, connection, plan):
        """See ComputeDriver.post_live_migration_at_destination.

        A guest that arrived and has stopped since is defined here and nowhere else; it is settled too.
        """
        domain = domains.find(connection, check_uuid(plan.instance_uuid))
        if domain is None:
            raise exceptions.PreconditionFailed('the guest is not here')
        if self._observer.state(domain, plan.instance_uuid)[0] == GuestState.INCOMING:
            raise exceptions.PreconditionFailed('the guest is still being received')
        if not domain.isPersistent():
            inactive = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE
            connection.defineXML(domain.XMLDesc(inactive))
        self._folders.settle(plan, domain_xml.describe(domain.XMLDesc(0)).managed)
        return self._kept_statistics(domain)

    @staticmethod
    def _kept_statistics(domain):
        """Give the finished job's statistics, which libvirt keeps here while the guest runs: the source's agent may have missed them."""
        try:
            figures = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
        except libvirt.libvirtError:
            return {}  # best effort: it has stopped since, or libvirtd was restarted
        return statistics(figures) if figures.get('type') == libvirt.VIR_DOMAIN_JOB_COMPLETED else {}

    def finish_at_source(self, connection, plan):
        """See ComputeDriver.post_live_migration_at_source."""
        domain = domains.find(connection, check_uuid(plan.instance_uuid))
        self._folders.copied(plan)  # refuses a plan with strange paths before anything is done
        if domain is not None:
            self._refuse_if_alive(domain, plan.instance_uuid)
            if domain.isActive():
                domains.destroy(domain)
            domains.undefine(domain)
        self._folders.forget_held(plan.instance_uuid)
        return {'left': self._folders.leave(plan)}

    def _refuse_if_alive(self, domain, uuid):
        state, reason = self._observer.state(domain, uuid)
        if state != GuestState.OFF and (state, reason) != (GuestState.PAUSED, PauseReason.MIGRATION):
            raise exceptions.PreconditionFailed(f'the guest is {state.value} here{reason and f" ({reason.value})"}')
        if state != GuestState.OFF and domains.job(domain)[0] != domains.NONE:
            raise exceptions.PreconditionFailed('a job of the guest is still running here')

    # --- after the guest has stayed ---

    def undo_at_source(self, connection, plan):
        """See ComputeDriver.rollback_live_migration_at_source."""
        uuid = check_uuid(plan.instance_uuid)
        domain = domains.find(connection, uuid)
        if domain is None:
            raise exceptions.PreconditionFailed('the guest is not here')
        state, reason = self._observer.state(domain, uuid)
        if state == GuestState.INCOMING or reason in (PauseReason.POST_COPY, PauseReason.POST_COPY_FAILED):
            raise exceptions.PreconditionFailed(f'the guest is {state.value} here{reason and f" ({reason.value})"}, it cannot go on')
        if state != GuestState.OFF and domains.job(domain)[0] != domains.NONE:
            raise exceptions.PreconditionFailed('a job of the guest is still running here')
        resumed = (state, reason) == (GuestState.PAUSED, PauseReason.MIGRATION)
        if resumed:
            domain.resume()
        self._folders.forget_held(uuid)
        return {'resumed': resumed}

    def undo_at_destination(self, connection, plan):
        """See ComputeDriver.rollback_live_migration_at_destination."""
        uuid = check_uuid(plan.instance_uuid)
        domain = domains.find(connection, uuid)
        if domain is not None and self._observer.incoming_migration(uuid) in (plan.migration_id, ''):
            if not self._is_incoming(domain, plan):
                state = self._observer.state(domain, uuid)[0]
                raise exceptions.PreconditionFailed(f'the guest is {state.value} here and may have run, so nothing of it is removed')
            husks.refuse(domain, self._storage.host)
            # The definition first: without it nothing of the guest is left once its emulator has gone.
            domains.undefine(domain)
            domains.destroy(domain)
        if domain is None:
            husks.forget(uuid)
        return {'left': self._folders.discard_migration(plan)}


class _Listener:
    """Catches the statistics that libvirt sends out as a job completes, for once the guest has left it cannot be asked for them; and
    tells the call of the hand-over (the guest was paused, all of it was sent, and the destination may run it from then on) and of its end.
    """

    def __init__(self, connection, domain, lasting):
        self._lasting = lasting
        self._connection = connection
        self._done = concurrency.native_event()
        self._figures = {}
        self._registrations = [connection.domainEventRegisterAny(domain, event, callback, None) for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._completed), (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lived))]

    def _lived(self, _connection, _domain, event, detail, _opaque):
        self._lasting.happened(event, detail)

    def _completed(self, _connection, _domain, figures, _opaque):
        # In the thread of libvirt's event loop: keep it and wake the waiting thread, nothing else.
        self._figures = dict(figures)
        self._done.set()

    def figures(self):
        """Give the statistics as a dict of numbers; 0 for what is not known."""
        self._done.wait(_STATISTICS_SECONDS)
        return statistics(self._figures)

    def close(self):
        """Stop listening."""
        for registration in self._registrations:
            with contextlib.suppress(libvirt.libvirtError):  # the connection may be gone, and the registration with it
                self._connection.domainEventDeregisterAny(registration)


def statistics(figures):
    """Pick from libvirt's statistics what `live_migration` returns; 0 for what is not known."""
    told = observe.job_figures(figures)
    return {name: told[name] for name in _STATISTICS}


def call(plan, live_xml, inactive_xml):
    """Give (parameters, flags) of libvirt's call. live_xml, inactive_xml: the migratable dumps of the guest."""
    parameters = {
        libvirt.VIR_MIGRATE_PARAM_URI: f'tcp://{observe.bracketed(plan.migration_host)}',
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: domain_xml.for_destination(live_xml, plan.listen_address),
        # Without it a restart at the destination would bring back what the source's definition says (where consoles listen).
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: domain_xml.for_destination(inactive_xml, plan.listen_address),
    }
    if plan.bandwidth_mib:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = plan.bandwidth_mib
    flags = _FLAGS
    if plan.copy:
        # With nothing to copy both flags must be off: without a list libvirt takes them for "all disks", volumes included.
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = list(plan.copy)
        backed = any(d.backing for d in plan.disks if d.target in plan.copy)
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC if backed else libvirt.VIR_MIGRATE_NON_SHARED_DISK
    if proven_shared(plan, domain_xml.describe(live_xml).disks):
        flags |= libvirt.VIR_MIGRATE_UNSAFE
    return parameters, flags


def proven_shared(plan, disks):
    """True when libvirt may be told to leave its own check of shared storage to us.

    It believes only file systems that it knows to be shared (NFS, CephFS …) and refuses others, such as a FUSE client or a directory
    that is mounted at both hosts. Ours compares identities, and is stronger. But its flag switches off the check of cache modes
    too, so each disk that stays where it is must have one under which no host serves it from its own memory.
    """
    left = [d for d in disks if d.target not in plan.copy and d.path and not d.readonly]
    shared = {d.target for d in plan.disks if d.target not in plan.copy}
    files = [d for d in left if d.type == 'file']
    return bool(files) and all(d.target in shared for d in files) and all(d.cache in _SAFE_CACHE for d in left)
