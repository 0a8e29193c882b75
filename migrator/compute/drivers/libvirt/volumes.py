"""Volumes as disks of guests: attached and detached, and guests that wait for a volume that did not answer.

A volume's disk is known by its serial. The live guest and its definition are looked at apart, and each is given what it lacks, so that
a call that was interrupted between the two is finished by the next one.
"""
import contextlib
import string
import time

import libvirt

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt import domain_xml, domains, exports, husks
from migrator.compute.drivers.libvirt.connection import in_words
from migrator.compute.drivers.libvirt.storage import check_uuid
from migrator.states import GuestState, PauseReason

LIVE, SAVED = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
_TARGETS = tuple(f'vd{letter}' for letter in string.ascii_lowercase)
_IN_MIGRATION = (PauseReason.MIGRATION, PauseReason.POST_COPY, PauseReason.POST_COPY_FAILED)
#: Seconds for an export to answer before a guest is tied to it.
_ANSWER_SECONDS = 5
#: Seconds between two looks whether a disk has gone, should the event that tells of it be lost.
_LOOK_SECONDS = 1.0
#: How QEMU says that the guest has been asked already.
_ASKED_ALREADY = 'in the process of unplug'


class Volumes:
    """Acts on one host. detach_timeout: seconds for a guest to let go of a disk; host: its name; observer: of the same host."""

    def __init__(self, detach_timeout, host, observer):
        self._detach_timeout = detach_timeout
        self._host = host
        self._observer = observer

    # --- attach ---

    def attach(self, connection, attachment):
        """See ComputeDriver.attach_volume."""
        domain = self._quiet(connection, attachment.instance_uuid)
        uri = domain_xml.export_uri(attachment.connection.uri)
        disks = {flag: domain_xml.describe(xml).disks for flag, xml in _definitions(domain).items()}
        present = {flag: _of_volume(found, attachment.serial) for flag, found in disks.items()}
        for disk in filter(None, present.values()):
            if (disk.path, disk.readonly) != (uri, attachment.read_only):
                raise exceptions.PreconditionFailed(
                    f'the volume is {disk.target} of the guest by {disk.path}{", read-only" if disk.readonly else ""} already')
        target = next((disk.target for disk in present.values() if disk), '') or attachment.target
        lacking = [flag for flag, disk in present.items() if disk is None]
        taken = {disk.target for flag in lacking for disk in disks[flag]}
        if target in taken:
            raise exceptions.PreconditionFailed(f'the guest has another disk {target}')
        if lacking:
            target = target or next((name for name in _TARGETS if name not in taken), '')
            if not target:
                raise exceptions.PreconditionFailed('the guest has no room for another disk')
            self._give(domain, attachment, target, lacking)
        return {'target': target}

    @staticmethod
    def _give(domain, attachment, target, flags):
        # The emulator waits for an export that does not answer, and the guest stands still with it.
        wrong = exports.problem(attachment.connection.uri, _ANSWER_SECONDS)
        if wrong:
            raise exceptions.DriverError(wrong)
        xml = domain_xml.volume(target, attachment.connection.uri, attachment.serial, attachment.read_only)
        domain.attachDeviceFlags(xml, sum(flags))

    # --- detach ---

    def detach(self, connection, attachment):
        """See ComputeDriver.detach_volume."""
        domain = self._quiet(connection, attachment.instance_uuid)
        for flag, xml in _definitions(domain).items():       # the live one comes first
            disk = _of_volume(domain_xml.describe(xml).disks, attachment.serial)
            if disk is None:
                continue
            if flag == LIVE:
                self._release(connection, domain, attachment.serial, domain_xml.disk(xml, disk.target))
            else:
                domain.detachDeviceFlags(domain_xml.disk(xml, disk.target), SAVED)
        return {}

    def _release(self, connection, domain, serial, xml):
        """Ask the guest to let go of a disk, and wait until it has."""
        deadline = time.monotonic() + self._detach_timeout
        with _Removal(connection, domain) as removal:
            try:
                domain.detachDeviceFlags(xml, LIVE)
            except libvirt.libvirtError as error:
                if not domains.ended(error) and _has(domain, serial) and _ASKED_ALREADY not in (error.get_error_message() or ''):
                    raise
            while _has(domain, serial):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise exceptions.DeviceInUse(
                        f'the guest has not let go of the volume within {self._detach_timeout:g} s of being asked, and keeps it')
                removal.wait(min(left, _LOOK_SECONDS))
        _settle(domain)

    # --- inside ---

    def _quiet(self, connection, uuid):
        """Find a guest that no migration has in its hands."""
        domain = domains.get(connection, check_uuid(uuid))
        husks.refuse(domain, self._host)
        state, reason = self._observer.state(domain, uuid)
        if state == GuestState.INCOMING or reason in _IN_MIGRATION or domains.job(domain)[0] != domains.NONE:
            raise exceptions.PreconditionFailed('a migration or another job of the guest is running')
        return domain


def _definitions(domain):
    """Give {LIVE or SAVED: XML} of what there is of a guest."""
    found = {}
    if domain.isActive():
        found[LIVE] = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    if domain.isPersistent():
        found[SAVED] = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    return found


def _of_volume(disks, serial):
    return next((d for d in disks if d.type == 'network' and d.serial == serial), None)


def _has(domain, serial):
    """Whether the live guest has the volume; one that is off or gone has not."""
    try:
        return domain.isActive() and _of_volume(domain_xml.describe(domain.XMLDesc(0)).disks, serial) is not None
    except libvirt.libvirtError as error:
        if domains.ended(error):
            return False
        raise


def _settle(domain):
    """Wait until libvirt has done what belongs to the removal: a disk leaves the XML a moment before the emulator closes the export.

    Any call that needs the guest's job comes after that; this one changes nothing.
    """
    try:
        domain.memoryStats()
    except libvirt.libvirtError as error:
        if not domains.ended(error):
            raise in_words(error, 'the volume is off the guest, and it is not known whether the emulator has closed it') from error


class _Removal:
    """Wakes whoever waits for a device to leave a guest. Only a hint: the XML tells whether it has left."""

    def __init__(self, connection, domain):
        self._connection = connection
        self._happened = concurrency.native_event()
        self._registration = connection.domainEventRegisterAny(
            domain, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._removed, None)

    def _removed(self, _connection, _domain, _device, _opaque):
        self._happened.set()                             # in the thread of libvirt's event loop, so nothing else

    def wait(self, seconds):
        """Wait for the next removal, or as long."""
        self._happened.wait(seconds)
        self._happened.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(libvirt.libvirtError):  # the connection may be gone, and the registration with it
            self._connection.domainEventDeregisterAny(self._registration)
