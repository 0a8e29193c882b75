"""Does an NBD export answer? Asked in the words of the protocol before a guest is tied to one, and before one that waits for it goes on.

Only the handshake is spoken (the NBD project's doc/proto.md, `fixed newstyle`): nothing of the volume is opened, so an array may count
no client. Runs in native threads.
"""
import contextlib
import struct

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt import domain_xml

_GREETING, _OPTION, _REPLY = b'NBDMAGICIHAVEOPT', b'IHAVEOPT', 0x3e889045565a9
_FIXED_NEWSTYLE = 1
_ABORT, _STARTTLS, _INFO = 2, 5, 6
_ACK, _INFORMATION = 1, 3
_ERROR = 1 << 31
_WORDS = {_ERROR + 2: 'it is not allowed', _ERROR + 5: 'the server wants TLS', _ERROR + 6: 'the server has no such export',
          _ERROR + 7: 'the server is shutting down'}
#: A server that knows of no such question has answered all the same.
_UNSUPPORTED = _ERROR + 1
#: Longest answer that is read, in bytes.
_LONGEST = 1 << 16
#: Most messages that a server may send for one question.
_MOST = 100


def problem(uri, seconds):
    """Ask the server of nbd[s]://host:port/export for that export; returns '' if it has it, else in words what is wrong. Never raises.

    seconds: for the connection and for each answer. With TLS the server is asked only whether it would begin that: whose certificates are
    good is for the hypervisor to find out. Of an export that is named in another way, such as by a local socket, nothing is known: ''.
    """
    try:
        host, port, name = domain_xml.nbd_export(uri)
    except exceptions.InvalidRequest:
        return ''
    try:
        with contextlib.closing(concurrency.native_connection(host, port, seconds)) as link, link.makefile('rb') as stream:
            return _ask(link, stream, name.encode(), uri.startswith('nbds:'))
    except (OSError, ValueError) as error:
        words = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        return f'the export {uri} does not answer: {words}'


def _ask(link, stream, name, tls):
    if _read(stream, 16) != _GREETING:
        raise ValueError('that is no NBD server')
    if not struct.unpack('>H', _read(stream, 2))[0] & _FIXED_NEWSTYLE:
        raise ValueError('the NBD server is too old')
    question, data = (_STARTTLS, b'') if tls else (_INFO, struct.pack('>I', len(name)) + name + struct.pack('>H', 0))
    link.sendall(struct.pack('>I', _FIXED_NEWSTYLE) + _OPTION + struct.pack('>II', question, len(data)) + data)
    said = _answer(stream, question)
    if not tls:                                          # behind an agreed STARTTLS nothing is said in the clear
        link.sendall(_OPTION + struct.pack('>II', _ABORT, 0))
    if said in (_ACK, _UNSUPPORTED):
        return ''
    raise ValueError(_WORDS.get(said, f'the server refused with error {said - _ERROR}'))


def _answer(stream, question):
    """Read until the answer proper, past what the server tells of the export."""
    for _ in range(_MOST):
        magic, option, kind, length = struct.unpack('>QIII', _read(stream, 20))
        if magic != _REPLY or option != question or length > _LONGEST:
            raise ValueError('the server breaks the protocol')
        _read(stream, length)
        if kind != _INFORMATION:
            return kind
    raise ValueError('the server says too much')


def _read(stream, length):
    data = stream.read(length)
    if len(data) < length:
        raise ValueError('the server closed the connection')
    return data
