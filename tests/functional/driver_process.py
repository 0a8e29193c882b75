"""A compute driver in a process of its own inside a lab's host, and the stand-in for it out here.

A driver must see what its host sees: the instances directory, the processes, libvirt's socket. So a test runs it where an agent runs it.
Requests and answers are lines of JSON on the program's standard input and output, several at once; values cross as on the wire.
"""
import contextlib
import inspect
import json
import os
import sys
import threading
import traceback
import typing

from migrator import concurrency, exceptions
from migrator.compute.driver import ComputeDriver
from migrator.rpc import facts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def hints(method):
    """Types of a method's arguments in their order, and of its result (None if it has none)."""
    function = getattr(ComputeDriver, method)
    found = typing.get_type_hints(function)
    return [found[name] for name in list(inspect.signature(function).parameters)[1:]], found.get('return')


def read_as(hint, value):
    """Turn what came over the pipe into the type that the contract names."""
    if hint in (None, dict, bool, int, str):
        return value
    if typing.get_origin(hint) is tuple:
        return tuple(read_as(typing.get_args(hint)[0], item) for item in value)
    return facts.from_wire(hint, value)


class DriverProcess:
    """A driver on a host: every method of ComputeDriver, run in there. Made started."""

    def __init__(self, host, name, config):
        """host: the lab's host; name: migrator's name for it; config: path of the agent's configuration file."""
        self.host = name
        self._process = host.popen([sys.executable, '-m', 'tests.functional.driver_process', name, config], cwd=ROOT,
                                   stdin=-1, stdout=-1, text=True, bufsize=1)
        self._lock = threading.Lock()
        self._waiting = {}
        self._ended = False
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self._receiver.start()
        self.start()

    def __getattr__(self, method):
        if not hasattr(ComputeDriver, method):
            raise AttributeError(method)
        return lambda *args: self._call(method, args)

    def close(self):
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(20)
        self._receiver.join(20)
        self._process.stdout.close()

    def kill(self):
        """End the process at once, as a crash of the agent."""
        self._process.kill()
        self.close()

    def _call(self, method, args):
        answer = {'ready': threading.Event()}
        with self._lock:
            if self._ended:
                raise RuntimeError(f'the driver process of {self.host} has ended')
            number = len(self._waiting)
            self._waiting[number] = answer
            self._process.stdin.write(json.dumps({'id': number, 'method': method, 'args': facts.to_wire(args)}) + '\n')
        if not answer['ready'].wait(180):
            raise RuntimeError(f'{method} did not return within 180 s')
        if 'error' in answer:
            raise getattr(exceptions, answer['error'], RuntimeError)(answer['message'])
        return read_as(hints(method)[1], answer['result'])

    def _receive(self):
        for line in self._process.stdout:
            said = json.loads(line)
            answer = self._waiting[said['id']]
            answer.update(said)
            answer['ready'].set()
        with self._lock:
            self._ended = True
            for answer in self._waiting.values():
                answer.setdefault('error', 'RuntimeError')
                answer.setdefault('message', 'the driver process has ended')
                answer['ready'].set()


def answer(driver, request):
    """Run one request and write its answer."""
    try:
        args = [read_as(hint, value) for hint, value in zip(hints(request['method'])[0], request['args'], strict=True)]
        said = {'result': facts.to_wire(concurrency.run_native(getattr(driver, request['method']), *args))}
    except exceptions.MigratorError as error:
        said = {'error': type(error).__name__, 'message': str(error)}
    except Exception:  # noqa: BLE001 - a defect of the driver, told to the test
        said = {'error': 'RuntimeError', 'message': traceback.format_exc()}
    os.write(1, (json.dumps({'id': request['id'], **said}) + '\n').encode())


def main(name, path):
    """Serve the driver that the configuration at `path` names until standard input ends."""
    concurrency.setup()
    from oslo_config import cfg
    from stevedore import driver as plugins

    from migrator import config
    conf = config.register(cfg.ConfigOpts())
    conf(['--config-file', path], project='migrator', default_config_files=[])
    driver = plugins.DriverManager('migrator.compute.drivers', conf.compute.driver).driver(conf, name)
    while line := concurrency.run_native(sys.stdin.readline):
        concurrency.spawn(answer, driver, json.loads(line))
    os._exit(0)  # calls that still run in native threads must not hold the process


if __name__ == '__main__':
    main(*sys.argv[1:])
