"""Real clients of NBD exports, for the harnesses of volume drivers: qemu-io, nbdcopy and nbdinfo; and who serves them."""
import contextlib
import pathlib
import subprocess
import urllib.parse


class NbdClients:
    """The part of a VolumeHarness that is a client."""

    #: Folder of certificates for exports that want TLS.
    keys = None

    def write(self, connection, offset, length, byte):
        """Write, and flush."""
        image = '-f', 'raw', connection.uri
        if connection.tls:
            where = urllib.parse.urlsplit(connection.uri)
            image = ('--object', f'tls-creds-x509,id=keys,endpoint=client,dir={self.keys}', '--image-opts',
                     f'driver=nbd,host={where.hostname},port={where.port},export={where.path[1:]},tls-creds=keys')
        said = _run('qemu-io', '-c', f'write -P {byte:#x} {offset} {length}', '-c', 'flush', *image)
        if f'wrote {length}/{length}' not in said:
            raise AssertionError(said)

    @contextlib.contextmanager
    def writer(self, connection):
        """Give a function that writes as `write` does, over one connection that it keeps, as a guest would."""
        with subprocess.Popen(['qemu-io', '-f', 'raw', connection.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            def write(offset, length, byte):
                client.stdin.write(f'write -P {byte:#x} {offset} {length}\nflush\n')
                client.stdin.flush()
                for line in client.stdout:
                    if f'wrote {length}/{length}' in line:
                        return
                    if 'failed' in line:
                        raise AssertionError(line)
                raise AssertionError('the client has ended')
            try:
                yield write
            finally:
                client.stdin.close()        # what it was told last, it does before it ends

    def read(self, connection):
        """Read all of it."""
        return subprocess.run(['nbdcopy', self._uri(connection), '-'], check=True, capture_output=True, timeout=60).stdout

    def serves(self, connection):
        """Whether it can be opened."""
        return subprocess.run(['nbdinfo', '--size', self._uri(connection)], capture_output=True, timeout=30).returncode == 0

    def _uri(self, connection):
        return f'{connection.uri}?tls-certificates={self.keys}' if connection.tls else connection.uri

    @contextlib.contextmanager
    def holding(self, connection):
        """Keep a client connected."""
        with subprocess.Popen(['qemu-io', '-f', 'raw', connection.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            client.stdin.write(b'read 0 4096\n')
            client.stdin.flush()
            client.stdout.readline()
            yield
            client.kill()


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f'{command}: {done.stdout} {done.stderr}')
    return done.stdout


def storage_daemons(folder):
    """List process ids of the storage daemons whose sockets lie in a folder, by what they were started with."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = path.read_bytes().decode(errors='replace')
        except OSError:
            continue                    # it has ended
        if words.startswith('qemu-storage-daemon') and f'{folder}/' in words:
            found.append(int(path.parent.name))
    return found
