"""The course of a soak: moves and faults at their times, a look at everything every second, and the end."""
import collections
import contextlib
import json
import pathlib
import subprocess
import tempfile
import time

from migrator import exceptions
from tests.lab import LabError
from tests.soak import plan, rules, watch
from tests.soak.faults import Saboteur
from tests.soak.moves import Mover

#: Seconds between two looks, and between two lines of output.
LOOK, TELL = 1.0, 10.0
#: After the last migration has ended: how long heartbeats and debts may take to bring everything in line.
SETTLE = 60.0


class Soak:
    """One soak on a stage that is up. say: prints a line."""

    def __init__(self, stage, seed, seconds, moves_per_minute, faults_per_minute, say):
        self._stage, self._seed, self._seconds, self._say = stage, seed, seconds, say
        self._faults = plan.faults(seed, seconds, faults_per_minute, stage.kinds)
        self._moves = plan.moves(seed, seconds, moves_per_minute)
        self._troubles = rules.Troubles(stage.settling)
        self._standstill = rules.Standstill(stage.bound)
        self._saboteur = stage.saboteur = Saboteur(stage, self._troubles)
        self._mover = Mover(stage.api, stage.hosts, stage.guests, seed, self._troubles, stage.options)
        self._found = {}
        self._rows = []
        self._looks = self._blind = 0
        self._told = 0.0
        self._began = time.monotonic()

    @property
    def found(self):
        """The violations so far: {words: seconds after the start}. Of use where `run` was broken off."""
        return self._found

    def run(self):
        """Run it all; returns the results as a dict."""
        self._began = time.monotonic()
        self._say(f'seed {self._seed}: {len(self._moves)} requests and {len(self._faults)} faults in {self._seconds:g} s; '
                  f'{len(self._stage.hosts)} hosts, {len(self._stage.guests)} guests')
        self._saboteur.start()
        self._act()
        self._mover.finish()
        self._saboteur.finish()
        unmet = self._stage.unmet()
        self._say('no more faults; what is under way ends')
        self._end()
        self._settle()
        return self._results(unmet)

    def _act(self):
        """Do everything at its time, and look meanwhile."""
        events = collections.deque(sorted([*self._faults, *self._moves], key=lambda event: event.at))
        next_look = 0.0
        while events or self._elapsed() < self._seconds:
            while events and events[0].at <= self._elapsed():
                event = events.popleft()
                self._mover.ask(event) if isinstance(event, plan.Move) else self._saboteur.inject(event)
            if self._elapsed() >= next_look:
                self._look()
                next_look = self._elapsed() + LOOK
            time.sleep(0.02)

    def _end(self):
        until = time.monotonic() + self._stage.settle
        while time.monotonic() < until:
            self._look()
            if self._rows and all(row.terminal for row in self._rows):
                return
            time.sleep(LOOK)
        for row in self._rows:
            if not row.terminal:
                self._violation(f'migration {row.id} of {row.instance} has not ended: {" ".join(word for word in row.stand if word)}')

    def _settle(self):
        """Look for what is left, until nothing is or the time is over."""
        until = time.monotonic() + SETTLE
        left = ['nobody has looked']
        while left and time.monotonic() < until:
            try:
                left = self._stage.remains() + self._audit()
            except (exceptions.MigratorError, LabError, subprocess.TimeoutExpired) as error:
                left = [f'nobody could look: {error}']
            time.sleep(LOOK if left else 0)
        for words in left:
            self._violation(words)

    def _audit(self):
        """Ask migrator itself for leftovers."""
        return leftovers_of(self._stage.api.audit())

    def _look(self):
        try:
            self._rows = self._stage.database.run(watch.migrations)
            for words in self._standstill.look(self._rows, self._troubles, time.monotonic()):
                self._violation(words)
            for words in self._stage.look():
                self._violation(words)
            self._looks += 1
        except (exceptions.Unavailable, LabError):
            self._blind += 1        # the database is down, or a host: nothing can be said, and nothing is
        if self._elapsed() - self._told > TELL:
            self._told = self._elapsed()
            self._say(self._line())

    def _violation(self, words):
        if words not in self._found:
            self._found[words] = round(self._elapsed(), 1)
            self._say(f'VIOLATION after {self._elapsed():.0f} s: {words}')

    def _line(self):
        states = collections.Counter(row.status for row in self._rows)
        ended = sum(count for status, count in states.items() if status in rules.TERMINAL_WORDS)
        told = ', '.join(f'{status} {count}' for status, count in sorted(states.items()))
        return (f'{self._elapsed():5.0f} s  {ended:4} ended, {len(self._rows) - ended:3} under way, '
                f'{sum(self._saboteur.done.values()):4} faults, {len(self._found)} violations  {told}')

    def _elapsed(self):
        return time.monotonic() - self._began

    def _results(self, unmet):
        outcomes = collections.Counter(row.status for row in self._rows)
        for words in [*self._mover.violations, *self._saboteur.errors, *rules.worth(outcomes, self._mover.refused)]:
            self._violation(words)
        kinds = collections.Counter(self._saboteur.done)
        kinds['driver failure'] -= unmet
        return {'seed': self._seed, 'seconds': round(self._elapsed()), 'migrations': sum(outcomes.values()), 'outcomes': dict(outcomes),
                'faults': sum(kinds.values()), 'kinds': {k: n for k, n in sorted(kinds.items()) if n},
                'left_out': sum(self._saboteur.left_out.values()),
                'refused': dict(self._mover.refused), 'asked': dict(self._mover.counts), 'looks': self._looks, 'blind': self._blind,
                'violations': self._found}


def leftovers_of(told):
    """Name what `ConductorAPI.audit` tells of: findings, debts that stand, and hosts that could not be looked at."""
    left = [f'audit: {f["kind"]} of {f["resource"]} at {f["host"]}: {f["what"]}' for f in told['findings']]
    left += [f'audit: debt at {d["host"]}: {d["action"]}' for d in told['debts']]
    return left + [f'audit: {h["host"]} could not be audited: {h["why"]}' for h in told['not_audited']]


def report(results, say):
    """Print the results."""
    def counted(numbers):
        return ', '.join(f'{name} {number}' for name, number in sorted(numbers.items())) or 'none'
    say('')
    say(f'{results["migrations"]} migrations ended: {counted(results["outcomes"])}')
    say(f'{results["faults"]} faults: {counted(results["kinds"])}; {results["left_out"]} more found no target')
    say(f'besides {counted(results["asked"])}; refused: {counted(results["refused"])}')
    say(f'{results["looks"]} looks at everything, {results["blind"]} more while the database or a host could not be asked')
    for words, at in results['violations'].items():
        say(f'VIOLATION after {at:g} s: {words}')
    say(f'{len(results["violations"])} violations; seed {results["seed"]}; {results["seconds"]} s')


@contextlib.contextmanager
def evidence(stage, results, say):
    """Keep logs and world in a folder when something was found, or when the with-block raises. results: a dict that it fills."""
    try:
        yield
    except BaseException:
        _keep(stage, results, say)
        raise
    if results['violations']:
        _keep(stage, results, say)


def _keep(stage, results, say):
    folder = pathlib.Path(tempfile.mkdtemp(prefix='migrator-soak-'))
    say(f'logs and what else there is to see: {folder}')
    (folder / 'results.json').write_text(json.dumps(results, indent=1))
    stage.keep(folder)
