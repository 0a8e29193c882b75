"""What RPC tests on a real broker need: a way to it that can be cut, agents as processes, a conductor that listens."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse

from migrator.rpc import contract, facts, server
from tests.unit.rpc import support

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Wire:
    """A TCP relay to the broker on loopback, to be cut and mended. `url` is the broker's URL through it."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self._broker = (parts.hostname, parts.port or 5672)
        self._lock = threading.Lock()
        self._sockets = set()
        self._whole = True
        self._listening = socket.create_server(('127.0.0.1', 0))
        account, _, _ = parts.netloc.rpartition('@')
        self.url = parts._replace(netloc=f'{account}@127.0.0.1:{self._listening.getsockname()[1]}').geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:  # closed
                return
            with self._lock:
                if not self._whole:
                    near.close()
                    continue
                far = socket.create_connection(self._broker)
                self._sockets |= {near, far}
            for here, there in ((near, far), (far, near)):
                threading.Thread(target=self._relay, args=(here, there), daemon=True).start()

    def _relay(self, here, there):
        try:
            while data := here.recv(65536):
                there.sendall(data)
        except OSError:
            return
        finally:
            for end in (here, there):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """End all connections and refuse new ones."""
        with self._lock:
            self._whole = False
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()

    def mend(self):
        """Let connections pass again."""
        with self._lock:
            self._whole = True

    def close(self):
        """Cut it for good."""
        self.cut()
        self._listening.close()


class Listener:
    """A conductor's ear: an RPC server of the agents' namespace that hands on to a ListeningConductor."""

    target = server.target(contract.AGENT_VERSION, contract.AGENT_NAMESPACE)

    def __init__(self, heard):
        self.heard = heard

    @server.exposed(contract.AGENT)
    def operation_finished(self, context, report):
        """Hear a report."""
        self.heard.operation_finished(context, facts.from_wire(facts.Report, report))

    @server.exposed(contract.AGENT)
    def heartbeat(self, context, heartbeat):
        """Hear a heartbeat."""
        return self.heard.heartbeat(context, facts.from_wire(facts.Heartbeat, heartbeat))


class AgentProcess:
    """An agent as a process of its own. mode: eventlet or threading. folder: its state and the files of its driver."""

    def __init__(self, url, host, folder, mode):
        self.folder = pathlib.Path(folder)
        self._environment = os.environ | {'MIGRATOR_CONCURRENCY': mode, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
        self.host = host
        self.config = self.folder / 'agent.conf'
        self.config.write_text(f'[DEFAULT]\nhost = {host}\nstate_path = {folder}\ntransport_url = {url}\n'
                               f'[compute]\ninstances_path = {folder}\nheartbeat_interval = 0.5\nreport_interval = 0.2\n')
        self.process = None

    def start(self, wait=True):
        """Start it, and wait until it says that it is ready."""
        self.log = (self.folder / 'log').open('ab')
        self._from = self.log.tell()
        self.process = subprocess.Popen([sys.executable, '-m', 'tests.functional.rpc_agent', '--config-file', str(self.config)],
                                        cwd=ROOT, env=self._environment, stdout=self.log, stderr=self.log)
        if wait:
            support.wait_for(lambda: f'migrator-compute {self.host} is ready' in self.said(), f'readiness in {self.said()}', timeout=30)
        return self

    def said(self):
        """Give what it has logged since its last start."""
        return (self.folder / 'log').read_bytes()[self._from:].decode()

    def calls(self):
        """List the calls of the driver, of all its processes."""
        path = self.folder / 'calls'
        return path.read_text().splitlines() if path.exists() else []

    def go(self):
        """Let live_migration return."""
        (self.folder / 'go').touch()

    def end(self, number=signal.SIGTERM):
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.log.close()
        return code

    def kill(self):
        """End it as a failing machine does, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)
