"""All tests of migrator: unit (no servers), functional (real servers and the lab) and faults (processes that die).

They run on plain threads, and with MIGRATOR_CONCURRENCY=eventlet in the environment on green ones.
"""
import os

from migrator import concurrency

if os.environ.get('MIGRATOR_CONCURRENCY') == 'eventlet':
    concurrency.setup()
