"""Runs one service of a lab until SIGTERM: `python -m tests.lab.serve KIND ADDRESS FOLDER`, started inside svc.

The servers are those of the tests without a lab (tests/service_keeper.py, by pifpaf), but listen on the lab's bridge and are not
tied to the process that started them: a lab that was left up outlives it. When the service is ready, a line of JSON with its
URL is printed.
"""
import json
import os
import signal
import sys
import tempfile
import threading

from tests import service_keeper

DATABASES = {'mariadb': 'pifpaf', 'postgresql': 'postgres'}


class Broker(service_keeper.RabbitMQ):
    """RabbitMQ with the same port and password each time: daemons whose broker crashed find the next one where it was."""

    def __init__(self, listen, **options):
        """Listen on the address `listen`."""
        super().__init__(listen, **options)
        self.port, self.password = 5672, 'lab'

    def get_port(self, nodename):
        """pifpaf's question for the port of a node."""
        return self.port


KINDS = {**service_keeper.KINDS, 'rabbitmq': Broker}


def main(argv):
    """Start the service, print its URL, and end it at SIGTERM or SIGINT."""
    kind, address, folder = argv[1:]
    tempfile.tempdir = os.environ['TMPDIR'] = folder
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with KINDS[kind](address, tmp_rootdir=folder) as server:
        print(json.dumps({'url': server.describe()['url'].format(database=DATABASES.get(kind, ''))}), flush=True)
        over.wait()
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv))
