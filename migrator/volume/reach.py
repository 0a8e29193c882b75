"""Where an export is, and whether somebody answers there: asked by the agent, so that no array waits for one that is silent."""
import re

from migrator import concurrency, exceptions

#: Seconds for which a remote may be silent before it counts as not there.
SECONDS = 2

_URI = re.compile(r'nbds?://(?P<host>[^/]+?):(?P<port>\d+)/(?P<export>[^/]+)\Z')


def parts(uri):
    """Split an export's URI into host, port (both as QEMU takes them) and export. Raises DriverError for what is none."""
    found = _URI.match(uri)
    if found is None:
        raise exceptions.DriverError(f'{uri!r:.200} is no address of an NBD export')
    return found.groups()


def same_place(uri, host, port):
    """True if an export's URI leads to this host and port, by whatever name. A name that nobody knows is only the same as itself."""
    its_host, its_port, _ = parts(uri)
    return int(its_port) == port and (its_host == host or bool(_addresses(its_host) & _addresses(host)))


def _addresses(host):
    try:
        return concurrency.native_addresses(host.strip('[]'))
    except OSError:
        return set()


def probe(host, port):
    """Return when an NBD server greets there. Raises DriverError in words when it does not within SECONDS."""
    try:
        with concurrency.native_connection(host.strip('[]'), int(port), SECONDS) as link, link.makefile('rb') as stream:
            greeting = stream.read(8)
    except OSError as error:
        raise exceptions.DriverError(f'the remote array at {host}:{port} does not answer: {error}') from error
    if greeting != b'NBDMAGIC':
        raise exceptions.DriverError(f'at {host}:{port} is no NBD server')
