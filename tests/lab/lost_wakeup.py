"""A libvirtd that wakes nobody, so that a rare race of its own happens each time.

When something has become of a guest, libvirtd wakes the threads that wait for it by virDomainObjBroadcast. In the race a thread begins to
wait just after the last such call. Here the call is made to do nothing for a while, which leaves that thread in the same place.
"""
import contextlib
import ctypes
import os

FUNCTION, RETURN = 'virDomainObjBroadcast', b'\xc3'                    # a near return of x86, which is all that the lab runs on


@contextlib.contextmanager
def lost(pid):
    """In the block no thread of the libvirtd with this process id is told of what becomes of its guest."""
    address = _address(pid)
    before = _exchange(pid, address, RETURN)
    try:
        yield
    finally:
        _exchange(pid, address, before)


def _address(pid):
    """Where the function lies in another process: as far into libvirt's library as in this one."""
    here = ctypes.cast(getattr(ctypes.CDLL('libvirt.so.0'), FUNCTION), ctypes.c_void_p).value
    start, offset, inode = next((start, offset, inode) for start, end, offset, inode in _mappings(os.getpid()) if start <= here < end)
    place = here - start + offset
    return next(start + place - offset for start, end, offset, found in _mappings(pid)
                if found == inode and offset <= place < offset + end - start)


def _mappings(pid):
    """Yield (start, end, offset in the file, its device and inode) of each part of a file that a process has mapped."""
    with open(f'/proc/{pid}/maps', encoding='ascii') as stream:
        for line in stream:
            span, _rights, offset, device, inode = line.split(maxsplit=5)[:5]
            if inode != '0':
                start, end = (int(word, 16) for word in span.split('-'))
                yield start, end, int(offset, 16), (device, inode)


def _exchange(pid, address, new):
    """Write bytes into the memory of a process; returns what was there."""
    with open(f'/proc/{pid}/mem', 'r+b', buffering=0) as memory:
        memory.seek(address)
        before = memory.read(len(new))
        memory.seek(address)
        memory.write(new)
    return before
