"""What a migration costs the control plane: messages, SQL and processor time, each by attribution."""
import dataclasses
import time

from tests import trace
from tests.bench import measure, sql_log
from tests.bench.sql_log import NAMELESS, OURS

#: Budgets of one live migration, and what is aimed at.
BUDGETS = {'messages': 26, 'statements': 40, 'commits': 12}
TARGETS = {'messages': 26, 'statements': 25, 'commits': 9}
#: How much the numbers may differ while many other migrations run.
TOLERANCE = 0.2
#: Seconds for what a conductor does after the end of a migration (it looks for queued ones).
AFTERWARDS = 0.5
#: Seconds for which the processor is watched, idle and busy: several heartbeats of each agent, and the interval at which conductors ask
#: for what they do not hear of (poll_interval), so that what others cause is the same in both.
CYCLE = 30.0


@dataclasses.dataclass(frozen=True)
class Moved:
    """One orchestrated migration that has ended well. seconds: from sending the request until the row was terminal."""

    id: str
    request_id: str
    instance_uuid: str
    seconds: float

    @property
    def ids(self):
        """By what messages and statements are attributed."""
        return self.id, self.request_id, self.instance_uuid


def of_migrations(move, tracer, log, count, without=()):
    """Count the messages and the SQL of `count` migrations one after another.

    move: does one and returns a Moved. tracer: an open trace.Trace. log: an open SQL log, or None. without: database connections that are
    not of the control plane. Returns a dict as `report` takes it.
    """
    samples = [_one(move, tracer, log, without) for _ in range(count)]
    typical = sorted(samples, key=lambda s: (s.get('statements', 0), s['messages']))[len(samples) // 2]
    numbers = {name: [sample[name] for sample in samples] for name in ('messages', 'statements', 'commits') if name in typical}
    return {**typical, 'all': numbers, 'counted': count}


def of_processor(move, pids, seconds=CYCLE):
    """Measure the processor seconds of the daemons: idle for `seconds`, then busy with one migration after the other for as long.

    move: as for of_migrations. pids: {daemon: process id}. Returns a dict as `report` takes it.
    """
    with measure.Processor(pids) as idle:
        time.sleep(seconds)
    moved, until = 0, time.monotonic() + seconds
    with measure.Processor(pids) as busy:
        while time.monotonic() < until:
            move()
            moved += 1
        time.sleep(AFTERWARDS)
    cpu = busy.above(idle.rate(), moved)
    return {'cpu': cpu, 'cpu_seconds': sum(cpu.values()), 'idle_cpu': idle.rate(), 'busy': moved}


def _one(move, tracer, log, without):
    start = len(tracer.messages())
    if log:
        log.clear()
    moved = move()
    said = trace.belonging(tracer.wait_answered(start, moved.ids[:2]), *moved.ids[:2])
    time.sleep(AFTERWARDS)
    found = {'messages': len(said), 'table': trace.table(said), 'seconds': moved.seconds}
    if log:
        found |= database(sql_log.group(log.statements(without)), moved.ids)
    return found


def database(transactions, ids):
    """Count statements and commits of one migration. What names nobody is counted as ours, for nobody else was about; but not what the end
    of the log cut short: such is the first statement of a heartbeat, too."""
    told = sql_log.attribute(transactions, ids)
    ours = [*told[OURS], *(transaction for transaction in told[NAMELESS] if transaction.committed)]
    return {'statements': sum(len(t.statements) for t in ours), 'commits': sum(t.committed for t in ours),
            'transactions': [f'{len(t.statements)}: {t.words()}' for t in ours],
            'apart': {kind: {'transactions': len(found), 'statements': sum(len(t.statements) for t in found)}
                      for kind, found in told.items() if kind not in (OURS, NAMELESS)}}


def verdicts(alone, crowded=None):
    """Judge the numbers. Returns (words, passed) for each."""
    found = []
    for name, budget in BUDGETS.items():
        if name in alone:
            worst = max(alone['all'][name])
            found.append((f'{name}: {worst} of at most {budget} (target {TARGETS[name]})', worst <= budget))
    if crowded:
        for name in BUDGETS:
            if name in alone:
                change = crowded[name] / alone[name] - 1
                found.append((f'{name} with others in flight: {crowded[name]}, {change:+.0%} (at most {TOLERANCE:.0%})',
                              abs(change) <= TOLERANCE and max(crowded['all'][name]) <= BUDGETS[name]))
        change = crowded['cpu_seconds'] / alone['cpu_seconds'] - 1
        found.append((f'processor seconds with others in flight: {crowded["cpu_seconds"]:.3f} after {alone["cpu_seconds"]:.3f}, '
                      f'{change:+.0%} (at most {TOLERANCE:.0%} more)', change <= TOLERANCE))
    return found


def report(cost):
    """Say in lines of text what was measured."""
    lines = [f'  messages {cost["all"]["messages"]}', *(f'    {line}' for line in cost['table'])]
    if 'statements' in cost:
        lines += [f'  SQL statements {cost["all"]["statements"]}, commits {cost["all"]["commits"]}; one migration by transactions:',
                  *(f'    {line}' for line in cost['transactions'])]
        lines += ['  not counted: ' + ', '.join(f'{kind} {n["transactions"]} transactions with {n["statements"]} statements'
                                                for kind, n in cost['apart'].items())]
    cpu = ', '.join(f'{name} {seconds:.3f}' for name, seconds in cost['cpu'].items())
    idle = ', '.join(f'{name} {rate:.3f}' for name, rate in cost['idle_cpu'].items())
    lines += [f'  processor seconds of all daemons {cost["cpu_seconds"]:.3f} ({cpu}), mean of {cost["busy"]} migrations; '
              f'without it they use, each second: {idle}']
    return lines
