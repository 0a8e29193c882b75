"""What is there: the host's facts, the inventory, where a guest is, how far its migration is, and the two checks of seed 000.

Nothing here changes anything. All of it is asked of libvirt and of the disks at the moment; only the host's capabilities are kept,
which libvirt itself computes once.
"""
import itertools
import os

import libvirt

from migrator.compute.drivers.libvirt import capabilities, disk_format, domain_xml, domains, exports, husks, markers
from migrator.compute.drivers.libvirt.storage import disk_images, locked
from migrator.exceptions import DriverError
from migrator.rpc import facts, traces
from migrator.states import GuestState, PauseReason

_COPYABLE = ('qcow2', 'raw')
#: Seconds for a volume's export to answer.
_ANSWER_SECONDS = 1
#: How many volumes that do not answer are named: each that is silent takes its time.
_ENOUGH = 3


class Observer:
    """Answers for one host. conf: [compute] and [libvirt]; connection: Connection; storage: Storage."""

    def __init__(self, conf, connection, storage):
        self._conf = conf
        self._connection = connection
        self._storage = storage
        self._static = None

    def static(self, connection):
        """Give (Capabilities, CPU models that guests can have), asked of libvirt once."""
        if self._static is None:
            found = capabilities.read(connection.getCapabilities())
            models = set()
            for domain_type in found.domain_types:
                models.update(capabilities.cpu_models(connection.getDomainCapabilities(None, found.arch, None, domain_type, 0)))
            self._static = found, tuple(sorted(models))
        return self._static

    # --- host ---

    def host_facts(self, connection):
        """See ComputeDriver.host_facts."""
        info = connection.getInfo()
        total, free = _memory(connection)
        return facts.Host(hypervisor_name=connection.getHostname(), hypervisor_type=connection.getType(),
                          hypervisor_version=connection.getVersion(), cpus=info[2], memory_mib=total, memory_free_mib=free,
                          availability_zone=self._conf.compute.availability_zone, storage=self._storage.identities())

    def inventory(self, connection):
        """See ComputeDriver.inventory."""
        found = []
        for domain in connection.listAllDomains(0):
            try:
                found.append(self._guest(domain))
            except libvirt.libvirtError as error:
                if not domains.vanished(error):  # it left while the list was read
                    raise
        return tuple(found)

    def domain_traces(self, connection):
        """Give the domains and their migration jobs as ComputeDriver.audit does."""
        found = []
        for domain in connection.listAllDomains(0):
            try:
                uuid = domain.UUIDString()
                found.append(traces.Trace('domain', uuid, domain.name(), self.state(domain, uuid)[0].value))
                if domains.job(domain)[0] in (domains.IN, domains.OUT):
                    found.append(traces.Trace('job', uuid, domain.name(), migration_id=self.incoming_migration(uuid)))
            except libvirt.libvirtError as error:
                if not domains.vanished(error):
                    raise
        return tuple(found)

    def _guest(self, domain):
        told = domain_xml.describe(domain.XMLDesc(0))
        return facts.Guest(uuid=told.uuid, name=told.name, state=self.state(domain, told.uuid)[0], memory_mib=told.memory_mib,
                           vcpus=told.vcpus, disks=tuple(self._disk(d)[0] for d in told.disks if d.target), managed=told.managed,
                           boot_files=told.boot_files)

    def _disk(self, disk):
        """Give (Disk, '' or in words why its image cannot be read)."""
        if disk.type != 'file' or not disk.path:
            return domain_xml.to_fact(disk, 0, '', '', ''), ''
        directory = self._storage.directory_of(disk.path)
        try:
            image = disk_format.read(disk.path, disk.format)
        except DriverError as error:
            return domain_xml.to_fact(disk, 0, directory, '', ''), str(error)
        return domain_xml.to_fact(disk, image.size, directory, image.backing, image.backing_format), ''

    # --- one guest ---

    def state(self, domain, uuid):
        """Give (GuestState, PauseReason) of a guest, telling a guest that is being received from one that lives."""
        state, reason = domains.state(domain)
        if state == GuestState.PAUSED and (reason == PauseReason.MIGRATION or domains.starting_up(domain)):
            return self._handed_over(uuid, reason, domains.job(domain)[0])
        if (state, reason) == (GuestState.PAUSED, PauseReason.USER) and markers.read(os.path.join(self._storage.held_path, uuid)):
            return state, PauseReason.MIGRATION  # held by our own hand after a hand-over (`Migration.migrate`)
        return state, reason

    def _handed_over(self, uuid, reason, direction):
        """Tell which end of a hand-over a guest is at that is paused for one.

        While the job exists its direction tells. After it is gone - libvirtd was killed - the marker does that `pre_live_migration`
        puts into this host's own state directory and that goes with the last step here; whether the domain is persistent does
        not tell, for a found guest need not be, and the destination defines it a moment before it runs.
        """
        if direction == domains.IN or (direction != domains.OUT and self.incoming_migration(uuid)):
            return GuestState.INCOMING, PauseReason.NONE
        return GuestState.PAUSED, reason

    def incoming_migration(self, uuid):
        """Give the id of the migration that this host was prepared for and that has not been finished here, '' when there is none."""
        return markers.read(os.path.join(self._storage.incoming_path, uuid))

    def locate(self, connection, uuid):
        """See ComputeDriver.locate."""
        domain = domains.find(connection, uuid)
        if domain is None:
            return facts.Location(GuestState.ABSENT)
        try:
            persistent = bool(domain.isPersistent())
            # The job first: one that ends in between is then reported with a state from after its end, never the other way round.
            direction = domains.job(domain)[0]
            state, reason = self.state(domain, uuid)
            # The job that libvirtd has of a husk is nobody's and never ends.
            job_active = direction in (domains.IN, domains.OUT) and not husks.note_of(domain)
        except libvirt.libvirtError as error:
            if domains.vanished(error):
                return facts.Location(GuestState.ABSENT)
            raise
        return facts.Location(state, reason, job_active=job_active, persistent=persistent)

    @staticmethod
    def progress(connection, uuid):
        """See ComputeDriver.progress; libvirt's errors pass."""
        domain = domains.find(connection, uuid)
        direction, figures = domains.job(domain) if domain is not None else (domains.NONE, {})
        return facts.Job(active=True, **job_figures(figures)) if direction == domains.OUT else facts.Job()

    # --- the checks ---

    def check_destination(self, connection, guest):
        """See ComputeDriver.check_can_live_migrate_destination."""
        found, models = self.static(connection)
        options = self._conf.libvirt
        address = options.live_migration_address or connection.getHostname()
        backing = {d.backing for d in guest.disks if d.backing}
        return facts.DestinationFacts(
            hypervisor_type=connection.getType(), hypervisor_version=connection.getVersion(), arch=found.arch, machines=found.machines,
            domain_types=found.domain_types, cpu_model=found.cpu_model, cpu_models=models, memory_free_mib=_memory(connection)[1],
            storage=self._storage.identities(), storage_free=self._storage.free(),
            backing_found=tuple(sorted(b for b in backing if not self._storage.chain_problem(b))),
            files_found=tuple(d.path for d in guest.disks if d.kind == 'file' and d.path and os.path.lexists(d.path)),
            volumes_silent=_silent(guest),
            boot_files_missing=tuple(path for path in guest.boot_files if not os.path.isfile(path)),
            occupied=self._occupied(connection, guest), migration_host=address,
            connection_uri=options.live_migration_uri or f'qemu+tls://{bracketed(address)}/system', listen_address=options.listen_address)

    def _occupied(self, connection, guest):
        domain = domains.find(connection, guest.uuid)
        if domain is not None:
            return f'libvirt has a domain {domain.name()} of this uuid, {self.state(domain, guest.uuid)[0].value}'
        if guest.name in (d.name() for d in connection.listAllDomains(0)):
            return f'libvirt has another domain named {guest.name}'
        if self.incoming_migration(guest.uuid):
            return f'it is still prepared for migration {self.incoming_migration(guest.uuid)}'
        for directory in self._storage.directories:
            path = self._storage.guest_directory(directory, guest.uuid)
            # On storage that both hosts share the marker names the source, and the directory is as it should be.
            if markers.read(os.path.join(path, markers.CREATED)) == self._storage.host and self._holds_what_was_left(path):
                return f'{path} holds what was left of a guest of this uuid'
            if markers.read(os.path.join(path, markers.MIGRATION)):
                return f'{path} was made by migration {markers.read(os.path.join(path, markers.MIGRATION))}'
        return ''

    def _holds_what_was_left(self, path):
        """True when disks lie in this host's directory of a guest that libvirt does not have here, and nobody uses them.

        After a move by hand the marker on shared storage still names this host; the emulator that runs elsewhere has the disks locked then.
        What is left of such a guest on this host's own storage is a console's log.
        """
        images = disk_images(self._storage.own_files(path))
        return bool(images) and not any(locked(image) for image in images)

    def check_source(self, connection, guest):
        """See ComputeDriver.check_can_live_migrate_source."""
        domain = domains.get(connection, guest.uuid)
        told = domain_xml.describe(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE if domain.isActive() else 0))
        state, reason = self.state(domain, guest.uuid)
        direction = domains.job(domain)[0]
        own_cpu = told.cpu_mode in ('host-passthrough', 'maximum')
        disks = [self._disk(d) for d in told.disks if d.target]
        return facts.SourceFacts(
            state=state, reason=reason, job_active=direction != domains.NONE, hypervisor_type=connection.getType(),
            hypervisor_version=connection.getVersion(), arch=told.arch, machine=told.machine, domain_type=told.domain_type,
            cpu_mode=told.cpu_mode, cpu_model=self.static(connection)[0].cpu_model if own_cpu else told.cpu_model,
            memory_mib=told.memory_mib, disks=tuple(fact for fact, _ in disks), storage=self._storage.identities(),
            obstacles=(*told.passthrough, *self._disk_obstacles(told, [trouble for _, trouble in disks]),
                       *_domain_obstacles(domain, told, direction)))

    def _disk_obstacles(self, told, troubles):
        for disk, trouble in zip((d for d in told.disks if d.target), troubles, strict=True):
            if trouble:
                yield trouble
            if disk.type not in ('file', 'network', 'block'):
                yield f'disk {disk.target} is of type {disk.type}, which cannot be moved'
            if disk.type != 'file' or not disk.path:  # an empty drive is no obstacle
                continue
            if not self._storage.directory_of(disk.path):
                yield f'disk {disk.target} lies in none of the storage directories: {disk.path}'
            elif disk.format not in _COPYABLE and not disk.readonly:
                yield f'disk {disk.target} has format {disk.format}; only {" and ".join(_COPYABLE)} can be moved'


def _silent(guest):
    """Tell in words which of a guest's volumes do not answer, and why."""
    uris = dict.fromkeys(d.path for d in guest.disks if d.kind == 'network' and d.path.startswith(('nbd://', 'nbds://')))
    return tuple(itertools.islice(filter(None, (exports.problem(uri, _ANSWER_SECONDS) for uri in uris)), _ENOUGH))


def _domain_obstacles(domain, told, direction):
    if domain.snapshotNum(0):
        yield 'the guest has snapshots that libvirt keeps; it cannot be moved with them'
    if domain.autostart():
        yield 'libvirt starts the guest by itself with its host (autostart); what a migration leaves there could run a second time'
    if direction != domains.NONE or not domain.isActive():
        return  # a migration's own copying shows as block jobs, and a guest that is off has none
    for disk in told.disks:
        if disk.mirrored or (disk.type in ('file', 'network') and disk.path and domain.blockJobInfo(disk.target, 0)):
            yield f'disk {disk.target} is being copied by a block job'


def job_figures(figures):
    """Turn libvirt's job statistics into the fields of facts.Job, `active` apart. Sizes in bytes, rates in bytes a second."""
    page = figures.get(libvirt.VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE, 4096)
    names = {'memory_total': libvirt.VIR_DOMAIN_JOB_MEMORY_TOTAL, 'memory_processed': libvirt.VIR_DOMAIN_JOB_MEMORY_PROCESSED,
             'memory_remaining': libvirt.VIR_DOMAIN_JOB_MEMORY_REMAINING, 'disk_total': libvirt.VIR_DOMAIN_JOB_DISK_TOTAL,
             'disk_processed': libvirt.VIR_DOMAIN_JOB_DISK_PROCESSED, 'disk_remaining': libvirt.VIR_DOMAIN_JOB_DISK_REMAINING,
             'iteration': libvirt.VIR_DOMAIN_JOB_MEMORY_ITERATION, 'downtime_ms': libvirt.VIR_DOMAIN_JOB_DOWNTIME,
             'elapsed_ms': libvirt.VIR_DOMAIN_JOB_TIME_ELAPSED}
    return {name: int(figures.get(key, 0)) for name, key in names.items()} | {
        'dirty_rate': int(figures.get(libvirt.VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE, 0)) * page}


def bracketed(address):
    """Write an address as it stands in a URI."""
    return f'[{address}]' if ':' in address and not address.startswith('[') else address


def _memory(connection):
    """Give (total, free) in MiB; what the page cache holds is free for guests."""
    figures = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
    free = sum(figures.get(name, 0) for name in ('free', 'buffers', 'cached'))
    return figures['total'] // 1024, min(free, figures['total']) // 1024
