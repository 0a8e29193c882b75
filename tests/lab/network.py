"""The network of a lab: the iproute2 calls, the choice of a free subnet, and the names of links."""
import ipaddress
import json
import subprocess

from tests.lab.errors import LabError

BRIDGE = 'br0'                                   # in the namespace of svc, so its name clashes with nothing
SERVICES, OUTSIDE = 254, 253                     # last byte of the address of svc, and of this machine's own on the lab's network


def ip(*words, inside=None):
    """Run iproute2's `ip`, in the network namespace of process `inside` if one is given; returns its output. LabError if it fails."""
    prefix = ['nsenter', '--target', str(inside), '--net', '--'] if inside else []
    done = subprocess.run([*prefix, 'ip', *words], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise LabError(f'ip {" ".join(words)}: {done.stderr.strip()}')
    return done.stdout


def outside_link(lab_id):
    """Name of the one link that a lab has on the machine itself (15 characters are allowed)."""
    return f'mg{lab_id}'


def link_exists(name):
    """Whether the machine has a link of that name."""
    return any(link['ifname'] == name for link in json.loads(ip('-json', 'link', 'show') or '[]'))


def choose_subnet(lab_id, taken):
    """A 10.99.N.0/24 that no route or address of the machine and no other lab (`taken`, as text) uses; tried from one by the id on."""
    used = [ipaddress.ip_network(text) for text in taken]
    for route in json.loads(ip('-json', '-4', 'route', 'show', 'table', 'all') or '[]'):
        if route['dst'] not in ('default', '0.0.0.0/0') and ipaddress.ip_network(route['dst'], strict=False).prefixlen > 0:
            used.append(ipaddress.ip_network(route['dst'], strict=False))
    first = int(lab_id, 16)
    for offset in range(256):
        subnet = ipaddress.ip_network(f'10.99.{(first + offset) % 256}.0/24')
        if not any(subnet.overlaps(other) for other in used):
            return str(subnet)
    raise LabError('no 10.99.N.0/24 is free on this machine')


def address(subnet, last):
    """The address of `subnet` that ends with the byte `last`."""
    return str(ipaddress.ip_network(subnet)[last])


def mac(host_address):
    """The link address that goes with an address: always the same one, so that nobody's neighbour table is wrong after a host came back.

    Left to itself, a bridge takes the lowest of its ports' addresses, and another one when that port goes.
    """
    return ':'.join(f'{byte:02x}' for byte in (0x02, 0x6d, *ipaddress.ip_address(host_address).packed))


def connect_machine(lab_id, subnet, services):
    """Join the machine itself to the bridge that process `services` holds."""
    link = outside_link(lab_id)
    ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'outside', 'netns', str(services))
    ip('link', 'set', 'outside', 'master', BRIDGE, 'up', inside=services)
    ip('address', 'add', f'{address(subnet, OUTSIDE)}/24', 'dev', link)
    ip('link', 'set', link, 'up')


def connect_host(name, host_address, host, services):
    """Join the network namespace of process `host` to the bridge: `eth0` there, a port named after the host here."""
    ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', str(host), inside=services)
    ip('link', 'set', name, 'master', BRIDGE, 'up', inside=services)
    ip('link', 'set', 'eth0', 'address', mac(host_address), inside=host)
    ip('address', 'add', f'{host_address}/24', 'dev', 'eth0', inside=host)
    ip('link', 'set', 'eth0', 'up', inside=host)


def remove_outside_link(lab_id):
    """Remove the machine's link to a lab; it also goes by itself when svc ends, only later."""
    if link_exists(outside_link(lab_id)):
        try:
            ip('link', 'delete', outside_link(lab_id))
        except LabError:
            if link_exists(outside_link(lab_id)):                    # not just the kernel being faster
                raise
