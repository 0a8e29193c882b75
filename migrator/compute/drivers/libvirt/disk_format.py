"""Reading the headers of disk images, so that an inventory of many guests needs no process for each disk.

qcow2 by its specification (QEMU's docs/interop/qcow2.txt): virtual size at byte 24, the backing file's name by the offset and length
at 8 and 16, its format in the header extension 0xE2792ACA. Anything else is raw. Images are read while guests write to them, which is
sound: these fields are written when an image is made or resized.
"""
import dataclasses
import os
import struct

from migrator import exceptions

_MAGIC = b'QFI\xfb'
_BACKING_FORMAT = 0xE2792ACA
_HEADER = struct.Struct('>4sIQIIQ')  # magic, version, backing offset, backing length, cluster bits, size
_MAX_NAME = 1023
_EXTENSIONS = 65536  # they lie in the first cluster, which has at least 512 bytes and rarely more than this


@dataclasses.dataclass(frozen=True)
class Image:
    """What an image's header says. size: bytes of virtual size; backing: a path, '' without, or a URI as it stands in the header."""

    format: str
    size: int
    backing: str = ''
    backing_format: str = ''


def read(path, expected=''):
    """Read the image at `path`. expected: 'raw' keeps the content from being interpreted, as a guest may write there what it likes.

    Raises DriverError in words when it cannot be read or is damaged.
    """
    try:
        with open(path, 'rb') as image:
            head = image.read(_EXTENSIONS)
            if expected == 'raw' or head[:4] != _MAGIC:
                return Image('raw', image.seek(0, os.SEEK_END))
            return _qcow2(path, image, head)
    except OSError as error:
        raise exceptions.DriverError(f'the disk image {path} cannot be read: {error.strerror}') from None


def _qcow2(path, image, head):
    if len(head) < 72:
        raise exceptions.DriverError(f'the disk image {path} has a damaged header')
    _, version, offset, length, _, size = _HEADER.unpack_from(head)
    if not offset or not length:
        return Image('qcow2', size)
    if length > _MAX_NAME:
        raise exceptions.DriverError(f'the disk image {path} has a damaged header')
    image.seek(offset)
    name = os.fsdecode(image.read(length))
    return Image('qcow2', size, _absolute(path, name), _backing_format(head, version))


def _absolute(path, name):
    if ':' in name.split('/', 1)[0]:  # json:{...}, nbd://..., not a path
        return name
    return os.path.normpath(os.path.join(os.path.dirname(path), name))


def _backing_format(head, version):
    at = struct.unpack_from('>I', head, 100)[0] if version >= 3 and len(head) >= 104 else 72
    while at + 8 <= len(head):
        kind, length = struct.unpack_from('>II', head, at)
        if kind == 0:
            break
        if kind == _BACKING_FORMAT:
            return head[at + 8:at + 8 + length].decode('ascii', 'replace')
        at += 8 + (length + 7) // 8 * 8
    return ''
