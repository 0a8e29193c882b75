"""The daemon's side of a LUN: its nodes, exports and jobs, asked for and brought to what the record says.

Everything here is "make it so": nodes and exports that exist are left alone, so each function may run after any half-done one.
"""
import hashlib
import os

from migrator import exceptions
from migrator.volume import reach
from migrator.volume.qmp import Refused

#: A node that says that everything recorded was brought back; a daemon without it has been restarted since.
RESTORED = 'migrator-restored'

#: Seconds for which a take-over waits for its remote to come back before writes fail: enough for a daemon that is started again. Guests
#: stop on errors and are resumed; but who lets go of such a LUN, or undoes its take-over, holds up the whole daemon for as long.
RECONNECT = 8

#: Bytes that a mirror has under way. What clients read meanwhile waits behind them on the link to the remote: with QEMU's 16 MiB a guest
#: that was given the volume was seen to stand still for three seconds where that link carries 5 MB a second.
BUFFER = 2 << 20

#: States of a job that has copied everything and holds its clients back.
DRAINED = ('waiting', 'pending')


def short(kind, *names):
    """Give an id of at most 31 characters, which is what QEMU takes, for a LUN's part. kind: one letter."""
    return kind + hashlib.sha256('/'.join(names).encode()).hexdigest()[:24]


def job_id(record):
    """Give the id of the mirror's job of a LUN."""
    return short('m', record.pool, record.name)


class Array:
    """What one daemon has of the LUNs. session: a qmp.Session; records: Records; credentials: directory of x509 files or ''."""

    def __init__(self, session, records, credentials=''):
        self.session = session
        self.records = records
        self.credentials = credentials
        self.nodes, self.exports = set(), {}
        self._silent = {}        # (host, port) of arrays that do not answer -> why
        self.look()

    def look(self):
        """See what is there, again after a job has changed it."""
        self.nodes = {node['node-name'] for node in self.session('query-named-block-nodes', flat=True)}
        self.exports = {e['id']: e for e in self.session('query-block-exports')}

    # --- nodes ---

    def local(self, record):
        """Make the node of the LUN's own file; returns its name."""
        file, node = short('f', record.pool, record.name), short('l', record.pool, record.name)
        if node not in self.nodes:
            if file not in self.nodes:
                self._add(file, driver='file', filename=os.path.abspath(self.records.path(record)), discard='unmap')
            self._add(node, driver=record.format, file=file, discard='unmap')
        return node

    def remote(self, record):
        """Make the node of the LUN that is taken over; returns its name. Refused when it cannot be reached."""
        origin = self._origin(record)
        if origin is not None:
            return self.local(origin)
        node = short('r', record.pool, record.name)
        if node not in self.nodes:
            host, port, export = reach.parts(record.mirror.uri)
            self._probe(host, port)
            more = {}
            if record.mirror.tls:
                more = {'tls-creds': self._client_credentials(), 'tls-hostname': host}
            # The daemon does nothing else while it connects, nor do its other exports: never without `open-timeout`.
            self._add(node, driver='nbd', server={'type': 'inet', 'host': host, 'port': port}, export=export,
                      reconnect_delay=RECONNECT, open_timeout=reach.SECONDS, **more)
        return node

    def _origin(self, record):
        """Give the Record of the LUN that this one comes from, if that is in another pool of the same array; else None."""
        if record.mirror is None or record.mirror.origin is None:
            return None
        origin = self.records.get(*record.mirror.origin)
        if origin is None:
            raise exceptions.DriverError(f'the LUN {"/".join(record.mirror.origin)} is gone, from which {record.name} is to come')
        return origin

    def _probe(self, host, port):
        """Raise DriverError unless the remote array answers; each is waited for once in a session."""
        if (host, port) not in self._silent:
            try:
                reach.probe(host, port)
            except exceptions.DriverError as error:
                self._silent[host, port] = str(error)
        if (host, port) in self._silent:
            raise exceptions.DriverError(self._silent[host, port])

    def drop_nodes(self, record):
        """Close the LUN's files and its remote. Refused while something uses them."""
        for kind in 'lfr':
            node = short(kind, record.pool, record.name)
            if node in self.nodes:
                self.session('blockdev-del', node_name=node)
                self.nodes.discard(node)

    def drop_origin(self, record):
        """Close the LUN of this array that another one was to come from, unless it is used otherwise."""
        origin = self._origin(record)
        if origin is not None and not origin.exports and origin.mirror is None:
            self.drop_nodes(origin)

    def drop_remote(self, record):
        """Let go of the LUN that was taken over."""
        node = short('r', record.pool, record.name)
        if node in self.nodes:
            self.session('blockdev-del', node_name=node)
            self.nodes.discard(node)

    def resize(self, record, size):
        """Grow an open LUN. Refused while it is exported for writing."""
        self.session('block_resize', node_name=self.local(record), size=size)

    def _add(self, node, **options):
        self.session('blockdev-add', node_name=node, **options)
        self.nodes.add(node)

    def _client_credentials(self):
        if not self.credentials:
            raise exceptions.DriverError('the remote wants TLS, and this array has no tls_credentials')
        try:
            self.session('object-add', qom_type='tls-creds-x509', id='migrator-tls', endpoint='client', dir=self.credentials)
        except Refused as error:
            if 'duplicate' not in str(error):
                raise
        return 'migrator-tls'

    # --- exports ---

    def export(self, record, export, writable):
        """Serve the LUN: its remote while it is taken over, else its own file. An export that is there stays as it is.

        PreconditionFailed if it is there and of another LUN: taken for this one's, it would have data written to, or read from, that one.
        """
        number = short('x', export)
        if number in self.exports:
            if self.exports[number]['node-name'] not in {short(kind, record.pool, record.name) for kind in 'lrt'}:
                raise exceptions.PreconditionFailed(f'export {export} is there already and serves another LUN')
        else:
            node = self.served(record)
            self.session('block-export-add', type='nbd', id=number, node_name=node, name=export, writable=writable)
            self.exports[number] = {'id': number, 'node-name': node}

    def has_export(self, export):
        """True if the daemon serves something under this name."""
        return short('x', export) in self.exports

    def served(self, record):
        """Give the node that clients read and write.

        While it is mirrored that is the mirror's filter. It must not be the remote itself: QEMU puts the filter between the remote and
        those who use it when the job begins, and a write of one who comes later would pass it by and be missing in the local file.
        """
        if record.mirror is None or record.mirror.local_is_complete:
            return self.local(record)
        filtering = short('t', record.pool, record.name)
        return filtering if filtering in self.nodes else self.remote(record)

    def serves_remote(self, record):
        """True while an export of this LUN still goes to the remote, so that no switch has been made."""
        elsewhere = {short(kind, record.pool, record.name) for kind in 'rt'}
        return any(self.exports.get(short('x', name), {}).get('node-name') in elsewhere for name in record.exports)

    def check_remote(self, record):
        """Raise PreconditionFailed if clients of a LUN wait for a remote that is silent: to let go of one would wait, too, and hold up all
        of the daemon, for up to RECONNECT seconds."""
        if record.mirror is None or record.mirror.origin is not None or not self.serves_remote(record):
            return
        host, port, _ = reach.parts(record.mirror.uri)
        try:
            self._probe(host, port)
        except exceptions.DriverError as error:
            raise exceptions.PreconditionFailed(f'the data of {record.name} is still at another array, and {error}') from error

    def unexport(self, export, force):
        """Stop serving. PreconditionFailed while somebody is connected, unless `force`."""
        number = short('x', export)
        if number not in self.exports:
            return
        try:
            self.session('block-export-del', id=number, mode='hard' if force else 'safe')
        except Refused as error:
            if 'in use' in str(error):
                raise exceptions.PreconditionFailed(f'export {export} is in use') from error
            raise
        del self.exports[number]

    # --- mirrors ---

    def jobs(self):
        """Name the mirrors' jobs with their states, {id: status}."""
        return {job['id']: job['status'] for job in self.session('query-jobs') if job['type'] == 'mirror'}

    def job(self, record):
        """Give the mirror's job as query-jobs has it, with `ready` and `io-status`; None if there is none."""
        number = job_id(record)
        jobs = [j for j in self.session('query-jobs') if j['id'] == number]
        if not jobs:
            return None
        block = next((j for j in self.session('query-block-jobs') if j['device'] == number), {})
        ready = block.get('ready', False) or jobs[0]['status'] in DRAINED
        return {**jobs[0], 'ready': ready, 'io-status': block.get('io-status', 'ok')}

    def begin_mirror(self, record):
        """Copy the remote to the local file while writes go to both. It does not switch by itself when it is told to end: see `drain`."""
        self.session('blockdev-mirror', job_id=job_id(record), device=self.remote(record), target=self.local(record),
                     filter_node_name=short('t', record.pool, record.name), sync='full', copy_mode='write-blocking', auto_dismiss=False,
                     auto_finalize=False, buf_size=BUFFER, speed=record.mirror.rate)
        self.nodes.add(short('t', record.pool, record.name))

    def drain(self, record):
        """Let a job that is ready come to its end: it holds all clients back, flushes the local file, and stands at `pending`."""
        self.session('block-job-complete', device=job_id(record))

    def limit_mirror(self, record):
        """Hold the job to what the record says, if there is one that copies. Writes of clients are not held back."""
        if not self._mirrors(record):
            return
        try:
            self.session('block-job-set-speed', device=job_id(record), speed=record.mirror.rate)
        except Refused:
            if self._mirrors(record):       # else it has ended since, and needs no limit
                raise

    def _mirrors(self, record):
        job = self.job(record)
        return job is not None and job['status'] in ('running', 'ready', 'paused', 'standby')

    def switch(self, record):
        """Let a job that is `pending` end: what was served from the remote is served from the local file, and clients go on."""
        self.session('job-finalize', id=job_id(record))

    def cancel_mirror(self, record):
        """Stop copying; it may take a moment until the job is gone. Clients that it held back go on at the remote."""
        self.session('block-job-cancel', device=job_id(record), force=True)

    def dismiss(self, record):
        """Forget a job that has ended."""
        self.session('job-dismiss', id=job_id(record))

    # --- after a restart ---

    @property
    def restored(self):
        """False for a daemon that was started since everything was last brought back."""
        return RESTORED in self.nodes

    def mark_restored(self):
        """Say that everything was brought back."""
        if not self.restored:
            self._add(RESTORED, driver='null-co', size=512)

    def bring_back(self, record):
        """Serve one LUN as its record says. Raises DriverError in words if that cannot be now."""
        if record.mirror is not None and not record.mirror.local_is_complete and self.job(record) is None:
            # Without the marker the local file may lack what was written in the meantime: everything is copied anew.
            self.begin_mirror(record)
        for export, writable in record.exports.items():
            self.export(record, export, writable)
