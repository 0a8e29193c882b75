"""libvirt's call of a migration, in a thread of its own that is left behind should the call never return.

When a guest ends at the source while a disk of it is mirrored, libvirtd may wait for ever for a guest that is gone: the end of the mirror
is worked on (qemuBlockJobEventProcessConcludedCopyAbort) while another of its threads takes the guest down and says so, and only then does
qemuMigrationSrcNBDStorageCopyReady begin to wait to be told (seen with libvirt 9.0). It keeps the guest's lock, so that starting and
undefining it fail after 30 s each. Every call of libvirt that would wake it is refused, for the guest does not run. What wakes it is the
end of its connection to the destination's libvirtd, or a restart.
"""
import contextlib
import time

import libvirt
from oslo_log import log

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt import links
from migrator.compute.drivers.libvirt.connection import has_code

LOG = log.getLogger(__name__)

#: Seconds that libvirt's call may go on after the guest has ended at the source. It takes one or two; after the hand-over the call is not
#: about that guest any more but about the destination's, which may still have to be told to run it.
GRACE_SECONDS, HANDED_OVER_SECONDS = 10, 120
#: Seconds for which a call that was woken may take to return; between two looks; and between two attempts to wake one that was left behind.
_WOKEN_SECONDS, _LOOK_SECONDS, _AGAIN_SECONDS = 10, 1, 15


class LastingCall:
    """One call. host: ours, for the messages; uri: of the destination's libvirtd; copies: tells whether the guest is being copied."""

    def __init__(self, host, uri, copies):
        self.handed_over = False
        self.left_behind = False
        self._host, self._uri, self._copies = host, uri, copies
        self._done = concurrency.native_event()
        self._result = self._error = self._links = self._ended_at = None
        self._woken = False

    # --- told on the way ---

    def begins(self):
        """libvirt is about to be called."""
        self._links = links.Links(self._uri)

    def happened(self, event, detail):
        """Take note of a lifecycle event of the guest. Comes in the thread of libvirt's event loop."""
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED and detail == libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED:
            # It is also sent where the guest is paused by a user in mid-copy, which is not told apart: rather held.
            self.handed_over = True
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail != libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED:
            self._ended_at = time.monotonic()

    # --- the call ---

    def run(self, function, *args):
        """Call function(*args), which calls `begins` and feeds `happened`; returns its result or raises its error.

        Raises DriverError in words if it does not return although the guest has ended here, or only when it is woken. If it goes on all the
        same its thread is left behind: it does not keep the process from ending, and what becomes of it is logged and nothing else.
        """
        concurrency.native_thread(self._run, function, args)
        while not self._done.wait(_LOOK_SECONDS):
            if self._links is not None and self._links.wanted and self._ended_at is None and self._copies():
                self._links.look()
            if self._ended_at is not None and self._hangs() and self._leave():
                raise exceptions.DriverError(f'the guest stopped at {self._host} during its migration, and libvirtd there waits for it '
                                             f'for ever. {remedy(self._host)}')
        if self._woken and isinstance(self._error, exceptions.DriverError):
            raise exceptions.DriverError(f'the guest stopped at {self._host} during its migration, which libvirtd there noticed only when '
                                         f'its connection to the destination was ended ({self._error})') from self._error
        if self._error is not None:
            raise self._error
        return self._result

    def _hangs(self):
        """Look whether the call takes too long; wake it if that can be done. True if it goes on all the same."""
        silent = time.monotonic() - self._ended_at
        if self.handed_over:
            return silent >= HANDED_OVER_SECONDS  # and the connection stays: it may be what has the destination run the guest
        if silent < GRACE_SECONDS:
            return False
        self._woken = self._links is not None and self._links.cut()
        return not (self._woken and self._done.wait(_WOKEN_SECONDS))

    def _leave(self):
        """Leave the thread behind; False if it ends just now."""
        self.left_behind = True  # first: whoever ends after this says so
        if self._done.is_set():
            return False
        if not self.handed_over and self._links is not None:
            concurrency.native_thread(self._wake)
        return True

    def _wake(self):
        """Go on trying to wake libvirtd: when other migrations have ended, it is clear which connection is this one's."""
        while not self._done.wait(_AGAIN_SECONDS):
            self._links.cut()

    def _run(self, function, args):
        try:
            self._result = function(*args)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._error = error
        finally:
            self._done.set()
        if self.left_behind:
            LOG.warning('libvirt\'s call of a migration to %s, which nobody waited for any more, has returned: %s', self._uri,
                        self._result if self._error is None else self._error)


def remedy(host):
    """What can be done when libvirtd waits for ever, in words."""
    return (f'Until it notices or is restarted, the guest can neither be started nor deleted. Restart libvirtd at {host}; guests that '
            'run go on meanwhile')


@contextlib.contextmanager
def in_words(domain, host):
    """Raise DriverError in words if libvirt refuses what is done in the block because it waits for ever for the migration of this guest.

    A guest that is off is not migrated: a migration that holds its lock is one that hangs. Other errors pass.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        if not has_code(error, libvirt.VIR_ERR_OPERATION_TIMEOUT) or 'Migrate' not in error.get_error_message() or domain.isActive():
            raise
        raise exceptions.DriverError(
            f'libvirtd at {host} waits for ever for a migration during which the guest has stopped. ' + remedy(host)) from error
