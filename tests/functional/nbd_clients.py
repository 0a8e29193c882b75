"""Real clients of NBD exports, for the harnesses of volume drivers: qemu-io, nbdcopy and nbdinfo; and who serves them."""
import contextlib
import pathlib
import subprocess


class NbdClients:
    """The part of a VolumeHarness that is a client."""

    def write(self, connection, offset, length, byte):
        """Write, and flush."""
        said = _run('qemu-io', '-f', 'raw', '-c', f'write -P {byte:#x} {offset} {length}', '-c', 'flush', connection.uri)
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
        return subprocess.run(['nbdcopy', connection.uri, '-'], check=True, capture_output=True, timeout=60).stdout

    def serves(self, connection):
        """Whether it can be opened."""
        return subprocess.run(['nbdinfo', '--size', connection.uri], capture_output=True, timeout=30).returncode == 0

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
