"""The lab: real libvirt hosts, a broker and guests on one machine, for the tests, the demo and CI.

A lab is a folder. From its path comes its id, and from the id the name of everything that it makes, so that several labs live
side by side and one that was killed half way is found again. Each libvirt host, and `svc`, where broker and databases run, is
a process of the lab's own (tests/lab/keeper.py) that holds network, mount, UTS and PID namespaces: when that process ends, the kernel
takes everything in it away - programs, mounts and links. Start with `Lab` (tests/lab/lab.py) or, in a test, `LabFixture`.
"""
import importlib

_HOMES = {'Console': 'console', 'find_gaps': 'console', 'parse_ticks': 'console', 'LabError': 'errors', 'LabFixture': 'fixture',
          'Lab': 'lab', 'Daemon': 'processes', 'wait_until': 'processes'}
__all__ = list(_HOMES)


def __getattr__(name):
    """Import what is asked for at first use: `tools/lab down` works where the packages that tests need are not installed."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__} has no attribute {name}')
    return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
