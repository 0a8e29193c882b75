"""Single questions and calls on one guest: finding it, its state in our words, its job, undefining it.

All functions take libvirt objects and let libvirt's errors pass, but for those that are an answer (no such domain). They run in
native threads and therefore log nothing.
"""
import libvirt

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt.connection import has_code
from migrator.states import GuestState, PauseReason

#: Whatever belongs to the definition goes with it; the firmware's variables are a file of the guest and stay.
_UNDEFINE = (libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
             | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)

_PAUSED = {
    libvirt.VIR_DOMAIN_PAUSED_USER: PauseReason.USER,
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: PauseReason.MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: PauseReason.POST_COPY,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: PauseReason.POST_COPY_FAILED,
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: PauseReason.IO_ERROR,
}
_RUNNING = {
    libvirt.VIR_DOMAIN_RUNNING_POSTCOPY: PauseReason.POST_COPY,
    # Since libvirt 8.5; it runs at the destination while the link for its missing pages is down.
    getattr(libvirt, 'VIR_DOMAIN_RUNNING_POSTCOPY_FAILED', -1): PauseReason.POST_COPY_FAILED,
}

#: Directions of a job.
NONE, OUT, IN, OTHER = '', 'out', 'in', 'other'


def find(connection, uuid):
    """Give the domain of that uuid, None when libvirt says that there is none."""
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if has_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            return None
        raise


def get(connection, uuid):
    """Give the domain of that uuid; InstanceNotFound when libvirt says that there is none."""
    domain = find(connection, uuid)
    if domain is None:
        raise exceptions.InstanceNotFound(f'the hypervisor knows no guest {uuid}')
    return domain


def vanished(error):
    """True when an error says that the domain went away in the meantime."""
    return has_code(error, libvirt.VIR_ERR_NO_DOMAIN)


def state(domain):
    """Give (GuestState, PauseReason) as libvirt has it; a guest that is being received is PAUSED here (see `observe`).

    The reason of a running guest is empty, but for post-copy, while it needs the other host's memory.
    """
    now, why = domain.state()
    if now in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED) and not domain.isActive():
        return GuestState.OFF, PauseReason.NONE
    if now in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN):
        return GuestState.RUNNING, _RUNNING.get(why, PauseReason.NONE) if now == libvirt.VIR_DOMAIN_RUNNING else PauseReason.NONE
    if now == libvirt.VIR_DOMAIN_PAUSED:
        return GuestState.PAUSED, _PAUSED.get(why, PauseReason.OTHER)
    return GuestState.PAUSED, PauseReason.OTHER


def starting_up(domain):
    """True while QEMU is being started and has not run the guest yet; an incoming guest looks so at first."""
    now, why = domain.state()
    return now == libvirt.VIR_DOMAIN_PAUSED and why == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP


def job(domain):
    """Give (direction, statistics) of the guest's job, (NONE, {}) when there is none.

    libvirt keeps statistics at the source only and says so with an error at the destination, which tells the direction.
    """
    try:
        figures = domain.jobStats()
    except libvirt.libvirtError as error:
        if has_code(error, libvirt.VIR_ERR_OPERATION_INVALID):     # it is not running
            return NONE, {}
        if has_code(error, libvirt.VIR_ERR_OPERATION_UNSUPPORTED):  # migration statistics are available only at the source
            return IN, {}
        raise
    if figures.get('type', libvirt.VIR_DOMAIN_JOB_NONE) in (libvirt.VIR_DOMAIN_JOB_NONE, libvirt.VIR_DOMAIN_JOB_COMPLETED):
        return NONE, {}
    operation = figures.get(libvirt.VIR_DOMAIN_JOB_OPERATION)
    direction = {libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: OUT, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: IN}
    return direction.get(operation, OTHER), figures


def undefine(domain):
    """Remove the definition; a guest that runs goes on without one. No definition is success."""
    if not domain.isPersistent():
        return
    try:
        domain.undefineFlags(_UNDEFINE)
    except libvirt.libvirtError as error:
        if not vanished(error):
            raise


def destroy(domain, graceful=False):
    """Cut the power and wait until the emulator is gone. Off or gone already is success.

    graceful: first let the emulator write out what it holds, for as long as libvirt waits (15 s).
    """
    if graceful:
        try:
            domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
            return
        except libvirt.libvirtError as error:
            if ended(error):
                return
            # It did not end in time; below it is not asked any more.
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if not ended(error):
            raise


def ended(error):
    """True when an error says that the guest is off or gone already."""
    return has_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)


def wait_until_off(domain, seconds):
    """Look until the guest is off or gone; False when it is neither after `seconds`. Looks four times a second."""
    for left in range(int(seconds * 4), -1, -1):
        try:
            if not domain.isActive():
                return True
        except libvirt.libvirtError as error:
            if vanished(error):
                return True
            raise
        if left:
            concurrency.native_sleep(0.25)
    return False
