"""Reads back what a lab's guest wrote on its disk, and says whether a record that it knew to be safe is missing.

The layout is the writer's in tests/lab/guest_init.sh: sector 0 names the last record, sector N holds record N, and from 32 MiB on
lies the fill.
"""
import dataclasses
import re
import subprocess
import tempfile

from tests.lab.errors import LabError

SECTOR, FILL_AT = 512, 32 << 20
RECORD = re.compile(rb'record (\d+) (\d+\.\d+) *\n\Z')
HEAD = re.compile(rb'head (\d+) *\n\Z')
LINE = b'fill of the lab\n'


@dataclasses.dataclass(frozen=True)
class Records:
    """What is on a disk: the number in sector 0, how many records stand without a gap from 1 on, and the broken ones before the head."""

    head: int
    whole: int
    broken: tuple[int, ...]

    def check(self, acknowledged):
        """LabError in words unless every record up to `acknowledged` (the last that the guest announced) is there."""
        if self.broken:
            raise LabError(f'records {self.broken[:10]} are missing or broken, of {self.head}')
        if self.whole < acknowledged:
            raise LabError(f'the guest knew {acknowledged} records to be safe, {self.whole} are there')
        if self.head < acknowledged:
            raise LabError(f'the guest knew {acknowledged} records to be safe, the head says {self.head}')


def raw_content(image, form, length, place=None):
    """The first `length` bytes of an image (a path or nbd:// URI of format `form`), as a guest sees them.

    place: the host in which to read, needed where the path or a backing file's path is meaningful only there. An image in use by a
    guest is read all the same, and then may be torn.
    """
    if form == 'raw' and place is None and not str(image).startswith('nbd:'):
        with open(image, 'rb') as file:
            return file.read(length)
    with tempfile.TemporaryDirectory(prefix='lab-disk-') as scratch:
        target = f'{scratch}/raw'
        argv = ['qemu-img', 'dd', '-U', '-f', form, '-O', 'raw', 'bs=1M', f'count={-(-length >> 20)}', f'if={image}', f'of={target}']
        if place:
            place.run(argv)
        else:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
            if done.returncode:
                raise LabError(f'{image}: {done.stderr.strip()}')
        with open(target, 'rb') as file:
            return file.read(length)


def read_records(image, form='qcow2', place=None, limit_mib=16):
    """Read the writer's records from an image of format `form`; see `raw_content`. limit_mib: where the records end at the latest."""
    data = raw_content(image, form, limit_mib << 20, place)
    head = HEAD.fullmatch(data[:SECTOR])
    last = int(head[1]) if head else 0
    whole, broken = 0, []
    for number in range(1, len(data) // SECTOR):
        record = RECORD.fullmatch(data[number * SECTOR:(number + 1) * SECTOR])
        if record and int(record[1]) == number:
            whole = number if whole == number - 1 else whole
        elif number <= last:
            broken.append(number)
    return Records(last, whole, tuple(broken))


def check_fill(image, mib, form='qcow2', place=None):
    """LabError with the first wrong byte's place unless the `mib` MiB of text that the guest put on its disk are all there."""
    data = raw_content(image, form, FILL_AT + (mib << 20), place)[FILL_AT:]
    wanted = (LINE * (len(data) // len(LINE) + 1))[:mib << 20]
    if data != wanted:
        first = next((i for i, (one, two) in enumerate(zip(data, wanted, strict=False)) if one != two), len(data))
        raise LabError(f'the fill of {image} differs at byte {FILL_AT + first}')
