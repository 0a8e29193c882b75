"""The lab: real libvirt hosts, a broker and guests on one machine, for the tests, the demo and CI.

A lab is a folder. From its path comes its id, and from the id the name of everything that it makes, so that several labs live
side by side and one that was killed half way is found again. Each libvirt host, and `svc`, where broker and databases run, is
a process of the lab's own (tests/lab/keeper.py) that holds network, mount, UTS and PID namespaces: when that process ends, the kernel
takes everything in it away - programs, mounts and links. Start with `Lab` (tests/lab/lab.py) or, in a test, `LabFixture`.
"""
from tests.lab.console import Console, find_gaps, parse_ticks
from tests.lab.errors import LabError
from tests.lab.fixture import LabFixture
from tests.lab.lab import Lab
from tests.lab.processes import Daemon, wait_until

__all__ = ['Console', 'Daemon', 'Lab', 'LabError', 'LabFixture', 'find_gaps', 'parse_ticks', 'wait_until']
