"""`tools/bench overhead`: an orchestrated live migration against the hypervisor's bare call, and what it costs the control plane."""
import contextlib
import os
import pathlib
import time

from tests import trace
from tests.bench import cost, measure, sql_log
from tests.bench.crowd import Crowd

#: What the bare call is to take in the long set, and the bounds within which it counts as such.
LONG_SECONDS, LONG_BOUNDS = 6.5, (5.0, 9.0)
#: Most that orchestration may cost.
MOST_RATIO, MOST_ADDED = 1.05, 0.3
#: Seconds of rest before each migration that is timed: an emulated guest has to translate its code anew where it arrived.
REST = 2.0
#: Migrations of which the cost is measured, each time.
SAMPLES = 5
#: MiB a second of the first guess at the bandwidth of the long set.
FIRST_GUESS = 16
KINDS = {'mariadb': 'mysql', 'postgresql': 'postgresql', 'sqlite': 'sqlite'}


class Overhead:
    """One run. stage: a Stage in use. say: takes lines of text."""

    def __init__(self, stage, say):
        self._stage, self._say = stage, say

    def times(self, pairs):
        """Measure both sets. Returns {'short': …, 'long': …} as measure.compare gives, with the bandwidth of the long one."""
        for _ in range(2):
            self._stage.orchestrated()       # both ways once: connections are made, plans are known
        short = self._pairs(pairs, 0)
        self._say_times('short', short)
        bandwidth = self._calibrate()
        long = self._pairs(pairs, bandwidth) | {'bandwidth_mib': bandwidth}
        self._say_times(f'long, at {bandwidth} MiB/s', long)
        return {'short': short, 'long': long}

    def _pairs(self, count, bandwidth):
        """Measure pairs; who comes first alternates, and with that each way is gone by both kinds equally often."""
        bare, orchestrated, phases = [], [], []
        for number in range(count):
            for kind in ('bare', 'orchestrated') if number % 2 == 0 else ('orchestrated', 'bare'):
                time.sleep(REST)
                if kind == 'bare':
                    bare.append(self._stage.bare(bandwidth))
                    continue
                moved = self._stage.orchestrated(bandwidth)
                orchestrated.append(moved.seconds)
                phases.append(measure.phases(self._stage.watch.moments(moved.id)))
            self._say(f'  pair {number + 1}: bare {bare[-1]:.3f} s, orchestrated {orchestrated[-1]:.3f} s')
        return measure.compare(bare, orchestrated) | {'phases': measure.medians(phases)}

    def _calibrate(self):
        """Find the bandwidth at which the bare call takes about LONG_SECONDS."""
        bandwidth, (least, most) = FIRST_GUESS, LONG_BOUNDS
        for _ in range(6):
            seconds = self._stage.bare(bandwidth)
            if least + 0.5 <= seconds <= most - 0.5:
                return bandwidth
            bandwidth = max(1, round(bandwidth * seconds / LONG_SECONDS))
        raise RuntimeError(f'no bandwidth makes the bare call take {least} to {most} s; at {bandwidth} MiB/s it took {seconds:.1f} s')

    def _say_times(self, name, found):
        for kind in ('bare', 'orchestrated'):
            numbers = found[kind]
            self._say(f'{name}: {kind:<13} median {numbers["median"]:.3f} s, least {numbers["min"]:.3f}, most {numbers["max"]:.3f}')
        self._say(f'{name}: ratio of the medians {found["ratio"]:.3f}, added {found["added"]:+.3f} s '
                  f'(median of the pairs {found["added_in_pairs"]:+.3f} s)')
        self._say(f'{name}: phases, medians: ' + ', '.join(f'{phase} {seconds:.3f} s' for phase, seconds in found['phases'].items()))


class ControlPlane:
    """Counts what a migration costs.

    database_url, transport_url, broker_pid, pids ({daemon: process}): of the control plane. without: connections to leave out.
    """

    def __init__(self, database_url, transport_url, broker_pid, pids, without, say):
        self._url, self._transport, self._pids, self._without, self._say = database_url, transport_url, pids, without, say
        self._control = trace.Control(broker_pid)

    def measure(self, move, crowd):
        """Measure alone and, unless `crowd` (a Crowd not yet in use) is None, with that in flight. Returns (alone, crowded or None)."""
        with contextlib.ExitStack() as stack:
            log = sql_log.log_of(self._url)
            if log:
                stack.enter_context(log)
            tracer = stack.enter_context(trace.Trace(self._transport, self._control))

            def costs():
                return cost.of_migrations(move, tracer, log, SAMPLES, self._without) | cost.of_processor(move, self._pids)
            self._say('cost of one migration, nothing else in flight:')
            alone = costs()
            self._tell(alone)
            if crowd is None:
                return alone, None
            self._say(f'{crowd.guests} simulated migrations are being started')
            stack.enter_context(crowd)
            self._say(f'cost of one migration, {crowd.guests} others in flight:')
            crowded = costs()
            if crowd.running() != crowd.guests:
                raise RuntimeError(f'only {crowd.running()} of the {crowd.guests} others were in flight at the end')
            self._tell(crowded)
            return alone, crowded

    def _tell(self, found):
        for line in cost.report(found):
            self._say(line)


def verdicts(times):
    """Judge the times. Returns (words, passed) for each."""
    short, long = times['short'], times['long']
    least, most = LONG_BOUNDS
    return [
        (f'short: {short["added"]:+.3f} s added (less than {MOST_ADDED} s)', short['added'] < MOST_ADDED),
        (f'long: the bare call took {long["bare"]["median"]:.2f} s (more than {least} s)', least < long['bare']['median'] < most),
        (f'long: ratio {long["ratio"]:.3f} (at most {MOST_RATIO})', long['ratio'] <= MOST_RATIO)]


@contextlib.contextmanager
def preferred(wanted):
    """Give all that is started within the block precedence over everything else that the machine does, for good, if that is wanted.

    Raises PermissionError if this process may not.
    """
    if wanted:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        if wanted:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def on_lab(arguments, say):
    """Run in the lab. Returns (results, verdicts)."""
    from tests.bench.stage import Stage
    with contextlib.ExitStack() as stack:
        with preferred(arguments.realtime):
            stage = stack.enter_context(Stage(KINDS[arguments.database]))
            times = Overhead(stage, say).times(arguments.pairs)
        plane = ControlPlane(stage.database_url, stage.transport_url, stage.broker_pid, stage.daemon_pids(), [stage.watch.number], say)
        crowd = Crowd(stage.api, stage.cloud.database, stage.transport_url, stage.lab.folder / 'crowd', guests=arguments.in_flight)
        alone, crowded = plane.measure(stage.orchestrated, crowd if arguments.in_flight else None)
    return {'times': times, 'alone': alone, 'crowded': crowded}, verdicts(times) + cost.verdicts(alone, crowded)


def simulated(arguments, say):
    """Count alone, with simulated hypervisors. Returns (results, verdicts)."""
    from tests.bench.simulated import SimulatedStage
    with SimulatedStage(KINDS[arguments.database]) as stage:
        stage.orchestrated()
        plane = ControlPlane(stage.database_url, stage.transport_url, stage.broker_pid, stage.daemon_pids(), [stage.watch.number], say)
        crowd = Crowd(stage.api, stage.cluster.database, stage.transport_url, pathlib.Path(stage.cluster.folder) / 'crowd',
                      guests=arguments.in_flight)
        alone, crowded = plane.measure(stage.orchestrated, crowd if arguments.in_flight else None)
    return {'alone': alone, 'crowded': crowded}, cost.verdicts(alone, crowded)
