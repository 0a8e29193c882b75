"""The connections that this host's libvirtd has opened to another host's, as the kernel lists them: to end that of a migration that hangs.

libvirtd opens one for each migration that it sends, and looks at the migration again when it ends. Nothing in libvirt tells which
connection belongs to which migration. It is concluded: the one that is looked for was not there before libvirt was called, was there when
the guest was being copied, and is there still, for libvirtd closes it only when its call is over. If several fit, as long as other
migrations to that host run beside it, none is touched.

Functions block and are for native threads.
"""
import dataclasses
import re
import urllib.parse

from migrator import concurrency, exceptions, programs

#: Ports of libvirtd where the URI names none. Other transports, such as ssh, have no connection of libvirtd's own.
_PORTS = {'tcp': 16509, 'tls': 16514, '': 16514}
_OURS = re.compile(r'"(?:libvirtd|virtqemud)",pid=')
_INODE = re.compile(r'\bino:(\d+)')
_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Link:
    """One connection. local, remote: address and port as `ss` writes them; inode: of its socket, which tells it from a later one."""

    local: str
    remote: str
    inode: str


class Links:
    """Finds the connection of one call of libvirt among those of this host's libvirtd. Made just before the call.

    uri: of the destination's libvirtd, as libvirtd is given it.
    """

    def __init__(self, uri):
        self._port, self._addresses = _end(uri)
        self._before = self._now()
        self._found = None

    @property
    def wanted(self):
        """True as long as `look` is of use."""
        return self._before is not None and self._found is None

    def look(self):
        """Note what was opened since. For the time when the call's connection is known to be open; later ones are not taken for it."""
        now = self._now()
        self._found = None if now is None else now - self._before

    def cut(self):
        """End the call's connection if it is known beyond doubt; False if it is not, or the system does not let us.

        Only for a call that has not returned: then its connection is one of those that `look` has noted and that are still there.
        """
        now = self._now()
        left = self._found & now if self._found is not None and now is not None else ()
        if len(left) != 1:
            return False
        link, = left
        try:
            programs.run(['ss', '-K', '-H', '-t', '-n', 'state', 'established', 'src', link.local, 'dst', link.remote], _SECONDS)
        except exceptions.DriverError:
            return False  # without the program, or the right to do it, libvirtd has to be restarted; whoever waits for the call says so
        now = self._now()
        return now is not None and link not in now

    def _now(self):
        """Give the Links that are established now; None when that cannot be told."""
        if not self._addresses:
            return None
        try:
            said = programs.run(['ss', '-H', '-t', '-n', '-p', '-e', 'state', 'established', 'dport', '=', f':{self._port}'], _SECONDS)
        except exceptions.DriverError:
            return None  # as above
        return parse(said, self._addresses)


def parse(said, addresses):
    """Read what `ss` says of connections; gives the Links of libvirtd to one of these addresses."""
    found = set()
    for line in said.splitlines():
        words, inode = line.split(), _INODE.search(line)
        if len(words) > 4 and inode and _OURS.search(line) and _bare(words[3].rpartition(':')[0]) in addresses:
            found.add(Link(words[2], words[3], inode[1]))
    return frozenset(found)


def _end(uri):
    """Give (port, addresses) at which libvirtd reaches the libvirtd of a URI; no address when that cannot be told."""
    try:
        parts = urllib.parse.urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme.partition('+')[2])
        addresses = concurrency.native_addresses(parts.hostname) if port and parts.hostname else ()
    except (OSError, ValueError):
        return 0, frozenset()  # libvirtd will not reach it either, and says why in words
    return port, frozenset(_bare(address) for address in addresses)


def _bare(address):
    """Give an address without brackets, without its interface, and an IPv4 address as such."""
    return address.strip('[]').partition('%')[0].strip(']').removeprefix('::ffff:')
