"""Guests that libvirtd keeps although they never began, because it was killed while it started their emulator.

libvirtd notes each active guest in a file of its own, at first with process 0, and then with the emulator's. The emulator is let go only
after that second note. If libvirtd dies before it, the next one reads the first note and takes the guest for active, but does not look for
its process and never ends the job that the note speaks of (seen with libvirt 9.0): every call that would change the guest waits 30 s for
that job and then fails. No call of libvirt's removes such a husk; a restart of libvirtd without the note does.

What is known of a husk: nothing of the guest has ever run under it. Functions run in native threads.
"""
import contextlib
import os
import time

from migrator import exceptions
from migrator.compute.drivers.libvirt import domain_xml, domains, markers

#: Where the system's libvirtd keeps its notes.
NOTES = '/run/libvirt/qemu'
#: libvirtd reads the notes that end in .xml. One that must not be read again is kept under this suffix, as evidence.
ASIDE = '.migrator-never-ran'
_DAEMONS = ('libvirtd', 'virtqemud')


def note_of(domain):
    """Give the path of the note that shows that this guest is a husk, '' when there is no such evidence.

    The evidence: libvirt says that the guest is starting up; its note is of this very domain and names process 0; and the note is older
    than the libvirtd that runs now, so that it is not one that is about to be replaced.
    """
    if not domains.starting_up(domain):
        return ''
    note = os.path.join(NOTES, f'{domain.name()}.xml')
    path = note if os.path.lexists(note) else note + ASIDE
    started = _daemon_started()
    try:
        written = os.stat(path).st_mtime
        with open(path, 'rb') as stream:
            said = domain_xml.status(stream.read())
    except OSError:
        return ''  # no note, or none that can be read: nothing is known
    if said != (domain.UUIDString(), domain.ID(), 0) or started is None or written >= started:
        return ''
    return path


def refuse(domain, host):
    """Raise DriverError in words if the guest is a husk, for libvirt would keep the caller waiting in vain. host: of the message.

    libvirtd's note is put aside first, so that a mere restart of libvirtd is all that an operator has to do. Idempotent.
    """
    path = note_of(domain)
    if not path:
        return
    if not path.endswith(ASIDE):
        try:
            os.rename(path, path + ASIDE)
        except OSError as error:
            raise exceptions.DriverError(f'{path} must be removed and cannot be: {error.strerror}') from None
    raise exceptions.DriverError(
        f'libvirtd at {host} was killed while it started the guest, and keeps a guest without a process that it cannot remove. Nothing of '
        'it has ever run. Restart libvirtd there; guests that run go on meanwhile')


def forget(uuid):
    """Remove notes that were put aside for a guest that libvirtd does not know any more. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(NOTES):
            path = os.path.join(NOTES, name)
            if name.endswith(ASIDE) and _uuid_in(path) == uuid:
                markers.remove(path)


def _uuid_in(path):
    try:
        with open(path, 'rb') as stream:
            return domain_xml.status(stream.read())[0]
    except OSError:
        return ''


def _daemon_started():
    """When the libvirtd of this host was started, in seconds since the epoch; None if there is none to be seen.

    A child that it has just forked bears its name too; the oldest of that name is itself.
    """
    with open('/proc/uptime', encoding='ascii') as stream:
        uptime = float(stream.read().split()[0])
    ages = []
    for process in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):  # it has ended
            with open(f'/proc/{process}/stat', encoding='ascii', errors='replace') as stream:
                name, _, rest = stream.read().partition('(')[2].rpartition(')')
            if name in _DAEMONS:
                ages.append(uptime - int(rest.split()[19]) / os.sysconf('SC_CLK_TCK'))
    return time.time() - max(ages) if ages else None
