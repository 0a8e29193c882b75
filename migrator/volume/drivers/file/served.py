"""One LUN and the storage daemon that serves it while it has exports. Has the methods of volume.array.Array that LunFiles uses."""
import contextlib
import os

from oslo_log import log

from migrator import concurrency, exceptions, programs
from migrator.volume.array import Array, short
from migrator.volume.qmp import ArraySilent, Monitor

LOG = log.getLogger(__name__)

#: Seconds between two looks whether a daemon that was told to end has ended.
LOOK = 0.02


class Served:
    """pool, lun: which. records: Records. settings: the backend's options. backend: its name, for the socket's."""

    def __init__(self, pool, lun, records, settings, backend):
        self._records = records
        self._settings = settings
        self._socket = os.path.join(settings.run_directory, short('q', backend, os.path.realpath(records.pools.get(pool, '')), lun))
        self._monitor = Monitor(self._socket, settings.array_timeout)

    # --- what LunFiles asks ---

    @staticmethod
    def job(_record):
        """There are no jobs."""

    def export(self, record, export, writable):
        """Serve the LUN under one more name."""
        self.bring_back(record)
        with self._array() as array:
            array.export(record, export, writable)

    def unexport(self, export, force):
        """Stop serving it under a name. PreconditionFailed while somebody is connected, unless `force`."""
        with contextlib.suppress(Gone), self._array() as array:
            array.unexport(export, force)

    def resize(self, record, size):
        """Grow the file, through the daemon if one has it open."""
        try:
            with self._array() as array:
                array.resize(record, size)
        except Gone:
            with open(self._records.path(record), 'r+b') as file:
                file.truncate(size)
                os.fsync(file.fileno())

    def drop_nodes(self, _record):
        """End the daemon, and wait until it has let go of the file and the port."""
        for _ in range(round(self._settings.array_timeout / LOOK)):
            try:
                with self._array() as array:
                    array.session('quit')
            except Gone:
                return
            except ArraySilent as error:         # one that ends hangs up in the midst of an answer
                LOG.debug('the storage daemon at %s ends: %s', self._socket, error)
            concurrency.native_sleep(LOOK)
        raise exceptions.DriverError(f'the storage daemon at {self._socket} does not end')

    # --- the daemon ---

    def alive(self):
        """Whether there is a daemon. Raises ArraySilent when there may be one that does not answer."""
        try:
            with self._array():
                return True
        except Gone:
            return False

    def bring_back(self, record):
        """Serve the LUN as its record says, by a new daemon if there is none. Raises DriverError in words."""
        if not self.alive():
            where = f'addr.type=inet,addr.host={self._settings.listen_address},addr.port={record.port}'
            programs.run(['qemu-storage-daemon', '--daemonize', '--chardev', f'socket,path={self._socket},server=on,wait=off,id=qmp',
                          '--monitor', 'chardev=qmp', '--nbd-server', f'{where},max-connections=0'], self._settings.array_timeout)
        with self._array() as array:
            array.bring_back(record)

    @contextlib.contextmanager
    def _array(self):
        """Talk with the daemon. Raises Gone if there is none, ArraySilent if it does not answer."""
        with contextlib.ExitStack() as stack:
            try:
                session = stack.enter_context(self._monitor.session())
            except ArraySilent as error:
                if isinstance(error.__cause__, (FileNotFoundError, ConnectionRefusedError)):
                    raise Gone(f'nothing serves {self._socket}') from None
                raise
            yield Array(session, self._records)


class Gone(exceptions.DriverError):
    """There is no daemon."""
