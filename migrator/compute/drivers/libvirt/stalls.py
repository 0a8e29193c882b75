"""Guests that stand still because a volume did not answer, and how they go on.

QEMU's NBD client does not wait for an array that restarts (libvirt 9.0 has no option for it), so its requests fail and the guest is paused
with them, nothing lost. QEMU 7.2 begins to connect anew when such a request is tried again, in the background, and that try fails
too: it takes two resumes to go on, sometimes more (seen with 7.2). Functions run in native threads.
"""
import libvirt

from migrator import concurrency
from migrator.compute.drivers.libvirt import domain_xml, domains, exports
from migrator.compute.drivers.libvirt.storage import check_uuid
from migrator.states import GuestState, PauseReason

#: Seconds for an export to answer.
_ANSWER_SECONDS = 2
#: How often a guest is resumed while its exports answer, and the seconds after which one that runs still counts as going on: the failed
#: requests are tried at once.
_RESUMES, _PROOF_SECONDS = 6, 0.5


class Stalls:
    """Looks and acts on one host. observer: of the same host."""

    def __init__(self, observer):
        self._observer = observer

    def stalled(self, connection):
        """See ComputeDriver.stalled."""
        found = []
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED):
            try:
                if self._waits_for(domain):
                    found.append(domain.UUIDString())
            except libvirt.libvirtError as error:
                if not domains.ended(error):  # it left while the list was read
                    raise
        return tuple(found)

    def resume(self, connection, uuid):
        """See ComputeDriver.resume_stalled."""
        domain = domains.get(connection, check_uuid(uuid))
        waits_for = self._waits_for(domain)
        for uri in waits_for:
            wrong = exports.problem(uri, _ANSWER_SECONDS)
            if wrong:
                return wrong
        for _ in range(_RESUMES):
            if not self._waits_for(domain):
                return ''
            domain.resume()
            concurrency.native_sleep(_PROOF_SECONDS)
        return f'{", ".join(waits_for)} answers, but reading or writing fails' if self._waits_for(domain) else ''

    def _waits_for(self, domain):
        """Give the exports that a guest stands still for; empty if it does not, or for something else."""
        state = self._observer.state(domain, domain.UUIDString())
        if state != (GuestState.PAUSED, PauseReason.IO_ERROR) or domains.job(domain)[0] != domains.NONE:
            return []
        volumes = {d.target: d.path for d in domain_xml.describe(domain.XMLDesc(0)).disks if d.path.startswith(('nbd://', 'nbds://'))}
        failed = domain.diskErrors()
        # Without a name, which an old emulator may not give, it may have been any of them.
        return [path for target, path in volumes.items() if target in failed or not failed]
