"""Making, starting, stopping and deleting guests on one host."""
import contextlib
import dataclasses
import os

import libvirt

from migrator import exceptions
from migrator.compute import boot_files
from migrator.compute.drivers.libvirt import capabilities, disk_format, domain_xml, domains, husks, lasting
from migrator.compute.drivers.libvirt.markers import CREATED
from migrator.compute.drivers.libvirt.storage import check_uuid
from migrator.states import GuestState, PauseReason

_SECTOR = 512


@dataclasses.dataclass(frozen=True)
class _Made:
    """A disk to be made: its path, format, size in bytes, backing file and that one's format."""

    path: str
    format: str
    size: int
    backing: str
    backing_format: str


class Guests:
    """Acts on one host. conf: [libvirt] options; storage, folders, observer: of the same host."""

    def __init__(self, conf, storage, folders, observer):
        self._conf = conf
        self._storage = storage
        self._folders = folders
        self._observer = observer

    def create(self, connection, spec):
        """See ComputeDriver.create_instance."""
        check_uuid(spec.uuid)
        domain = domains.find(connection, spec.uuid)
        if domain is not None:
            return self._created_already(domain, spec.uuid)
        platform = self._platform(connection)
        made = self._check(spec)
        places = [self._storage.instances_path, *(self._storage.directory_of(m.path) for m in made)]
        claimed = self._folders.claim_for_creation(spec.uuid, list(dict.fromkeys(places)))
        try:
            return self._make(connection, spec, platform, made)
        except BaseException:
            # What an earlier, interrupted call made stays for the next one; what this call made would only stand in the way.
            for path in claimed:
                self._folders.empty(path, CREATED)
            raise

    def _created_already(self, domain, uuid):
        told = domain_xml.describe(domain.XMLDesc(0))
        if not told.managed or self._observer.state(domain, uuid)[0] == GuestState.INCOMING:
            raise exceptions.DestinationNotEmpty(f'libvirt has a domain {told.name} of this uuid that was not made here')
        return {'name': told.name}

    def _platform(self, connection):
        options = self._conf.libvirt
        return capabilities.platform(self._observer.static(connection)[0], options.virt_type, options.cpu_model, capabilities.can_use_kvm)

    def _check(self, spec):
        """Refuse what cannot be made, before anything is; returns the disks to make."""
        boot = boot_files.of(spec)
        boot_files.check(boot, self._conf.compute.boot_file_paths, self._storage.host, os.path.realpath)
        for path in boot:
            if not os.path.isfile(path):
                raise exceptions.InvalidRequest(f'{path} is not a file on {self._storage.host}')
        targets = [d.target for d in spec.disks]
        if len(set(targets)) != len(targets):
            raise exceptions.InvalidRequest('two disks have the same target')
        for disk in spec.disks:
            if disk.uri:
                domain_xml.nbd_export(disk.uri)
        return [self._check_disk(spec.uuid, disk) for disk in spec.disks if not disk.uri]

    def _check_disk(self, uuid, disk):
        directory = os.path.normpath(disk.directory) if disk.directory else self._storage.instances_path
        if directory not in self._storage.directories:
            raise exceptions.InvalidRequest(f'{disk.directory} is none of the storage directories of {self._storage.host}')
        path = self._path(uuid, disk)
        size, form = disk.size, ''
        if disk.backing:
            problem = self._storage.chain_problem(disk.backing)
            if problem:
                raise exceptions.DriverError(problem)
            image = disk_format.read(disk.backing)
            size, form = size or image.size, image.format
        size = -(-size // _SECTOR) * _SECTOR
        self._storage.check_new_disk(path, disk.format, size, disk.backing)
        return _Made(path, disk.format, size, disk.backing, form)

    def _path(self, uuid, disk):
        directory = os.path.normpath(disk.directory) if disk.directory else self._storage.instances_path
        return os.path.join(self._storage.guest_directory(directory, uuid), f'{disk.target}.{disk.format}')

    def _make(self, connection, spec, platform, made):
        for disk in made:
            self._storage.make_disk(disk.path, disk.format, disk.size, disk.backing, disk.backing_format)
        name = spec.name
        if name in (d.name() for d in connection.listAllDomains(0)):
            name = f'{name}-{spec.uuid[:8]}'  # names are unique on a host, and a guest of that name may lie on it by chance
        disks = [(d, '' if d.uri else self._path(spec.uuid, d)) for d in spec.disks]
        connection.defineXML(domain_xml.build(spec, name, platform, disks, self._storage.console(spec.uuid)))
        return {'name': name}

    def start(self, connection, uuid):
        """See ComputeDriver.start_instance."""
        domain = domains.get(connection, check_uuid(uuid))
        husks.refuse(domain, self._storage.host)
        if self._observer.state(domain, uuid)[0] == GuestState.INCOMING:
            raise exceptions.PreconditionFailed('the guest is being received by a migration')
        if not domain.isActive():
            try:
                with lasting.in_words(domain, self._storage.host):
                    domain.create()
            except libvirt.libvirtError:
                if not domain.isActive():  # else someone was faster
                    raise
        self._adopt(domain, uuid)
        return {}

    def _adopt(self, domain, uuid):
        """A guest that lives here is this host's, whoever's marker is on its disks."""
        told = domain_xml.describe(domain.XMLDesc(0))
        if told.managed and self._observer.state(domain, uuid)[1] != PauseReason.MIGRATION and domains.job(domain)[0] == domains.NONE:
            self._folders.adopt(uuid, [d.path for d in told.disks if d.type == 'file' and d.path])

    def stop(self, connection, uuid, timeout):
        """See ComputeDriver.stop_instance."""
        domain = domains.get(connection, check_uuid(uuid))
        husks.refuse(domain, self._storage.host)
        state, _ = self._observer.state(domain, uuid)
        if state == GuestState.OFF:
            return {'cut': False}
        self._refuse_during_job(domain, state)
        self._adopt(domain, uuid)
        if timeout > 0 and state == GuestState.RUNNING:
            with contextlib.suppress(libvirt.libvirtError):  # a guest that cannot be asked has its power cut, which is next
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
                if domains.wait_until_off(domain, timeout):
                    return {'cut': False}
        self._refuse_during_job(domain, state)
        domains.destroy(domain, graceful=True)
        return {'cut': True}

    @staticmethod
    def _refuse_during_job(domain, state):
        if state == GuestState.INCOMING or domains.job(domain)[0] != domains.NONE:
            raise exceptions.PreconditionFailed('a migration or another job of the guest is running')

    def delete(self, connection, uuid):
        """See ComputeDriver.delete_instance."""
        domain = domains.find(connection, check_uuid(uuid))
        if domain is not None and domain.isActive():
            raise exceptions.PreconditionFailed(f'the guest is {self._observer.state(domain, uuid)[0].value}, not off')
        directories = self._folders.created(uuid)
        self._storage.check_unused([file for d in directories for file in self._storage.own_files(d)])
        if domain is not None:
            with lasting.in_words(domain, self._storage.host):
                domains.undefine(domain)
        stays = [self._folders.empty(d, CREATED) for d in directories]
        return {'left': [*(words for words in stays if words), *(self._folders.of_others(uuid) if domain is not None else ())]}
