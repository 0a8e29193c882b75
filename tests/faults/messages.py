"""Runs a real daemon that is out of luck with the broker: its messages are lost, or their answers, and they come twice.

    python -m tests.faults.messages conductor --config-file …        (or compute, or volume)

Meant are the messages that change something: a conductor's requests that begin an operation, and an agent's reports of how one ended. The
first sending of each never arrives; the second arrives twice at once, and neither answer comes back; each further one arrives twice, and
is answered. To the sender a loss looks as always, only that it need not wait for it. What comes twice are two requests over the real
broker. The environment variable MIGRATOR_MESSAGES_FILE names a file to which each sending is written, a line of JSON: `sender`, `name`,
`server`, `arguments`, `fate` (lost, unanswered, answered), and what was said to either copy: the operation's state, or the error's class.
"""
import collections
import functools
import json
import os
import sys


def key_of(name, arguments):
    """Name the operation that a message is about, whichever attempt at it; None for a message that changes nothing."""
    told = arguments.get('envelope') or (arguments.get('report') if name == 'operation_finished' else None)
    return told and (name, told['op_id'].rpartition('/')[0])


class Misfortune:
    """Decides what becomes of each sending, and writes it down. path: the file."""

    def __init__(self, path, sender):
        self._path = path
        self._sender = sender
        self._sent = collections.Counter()

    def fate(self, key):
        """What becomes of the next sending of the message with that key."""
        self._sent[key] += 1
        return {1: 'lost', 2: 'unanswered'}.get(self._sent[key], 'answered')

    def note(self, name, server, arguments, fate, said):
        """Write a sending down, in one piece."""
        line = {'sender': self._sender, 'name': name, 'server': server, 'arguments': arguments, 'fate': fate, 'said': said}
        with open(self._path, 'ab', buffering=0) as file:
            file.write(json.dumps(line).encode() + b'\n')


def arm(misfortune):
    """Put it between the product's clients and the broker."""
    from migrator import concurrency, exceptions
    from migrator.rpc import errors, transport
    original = transport.Client.call

    @functools.wraps(original)
    def call(self, context, name, version=None, server=None, patience=None, **arguments):
        send = functools.partial(original, self, context, name, version=version, server=server, patience=patience, **arguments)
        key = key_of(name, arguments)
        if key is None:
            return send()
        fate = misfortune.fate(key)
        if fate == 'lost':
            misfortune.note(name, server, arguments, fate, [])
            raise errors.NoAnswer(f'{name} was lost on its way')
        copies, said, answer = [concurrency.spawn(send) for _ in range(2)], [], None
        for copy in copies:
            try:
                answer = copy.wait()
                said.append((answer or {}).get('state', 'heard'))
            except exceptions.MigratorError as error:
                answer = error
                said.append(type(error).__name__)
        misfortune.note(name, server, arguments, fate, said)
        if fate == 'unanswered':
            raise errors.NoAnswer(f'the answer to {name} was lost')
        if isinstance(answer, Exception):
            raise answer
        return answer
    transport.Client.call = call


def main():
    """Start the daemon."""
    from migrator import concurrency
    concurrency.setup()
    arm(Misfortune(os.environ['MIGRATOR_MESSAGES_FILE'], os.environ['MIGRATOR_NAME']))
    kind, *arguments = sys.argv[1:]
    if kind == 'conductor':
        from migrator.cmd import conductor as program
    elif kind == 'volume':
        from migrator.cmd import volume as program
    else:
        from migrator.cmd import compute as program
    program.main(arguments)


if __name__ == '__main__':
    main()
