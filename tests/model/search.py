"""Walks over every state that the model can reach within bounds, and over every way on from there.

    python -m tests.model.search [--faults N] [--attempts N]

Safety: the rules hold in every state. Liveness: from every state there is a way to an end on which nothing fails any more; a state
without one is stuck. Printed are the numbers of states and of ends, by status.
"""
import argparse
import collections
import dataclasses
import time

from migrator.conductor import stimulus
from migrator.conductor.agents import WORKFLOWS
from migrator.conductor.cursor import Cursor, Direction, Kind, Phase, Policy
from migrator.conductor.decide import next_action
from migrator.rpc.facts import Location
from migrator.states import GuestState, OperationState
from tests.model import rules
from tests.model.world import DESTINATION, SOURCE, Broken, Operation, Request, State, job_moves, run

ROLES = (SOURCE, DESTINATION)
UNREACHABLE = Location(GuestState.UNREACHABLE)
LONG = 10 ** 9


class Model:
    """The steps of the model. faults: how many may happen in one run. attempts: the policy's step_attempts."""

    def __init__(self, workflow=None, faults=2, attempts=2, aborts=True, fences=True):
        self.workflow = workflow or WORKFLOWS['live_migration']
        self.faults = faults
        self.aborts = aborts
        self.fences = fences
        self.policy = Policy(step_attempts=attempts)

    def role(self, method):
        """Which host does a method."""
        step = self.workflow.step(method)
        return (step.undo.on if step.undo and step.undo.method == method else step.on).value

    def steps(self, state):
        """Give every (name, is it a fault, next state) from here."""
        yield from self.conductor(state)
        yield from self.agents(state)
        for name, hypervisors, outcome in job_moves(state.hypervisors):
            yield name, False, self.job_ends(state._replace(hypervisors=hypervisors), outcome)
        if state.faults < self.faults:
            yield from self.failures(state)

    # --- the conductor ---

    def decide(self, state, event, now=1):
        """Store what an event leads to: the transaction. Nothing is sent yet. None if it changes nothing."""
        action = next_action(self.workflow, state.cursor, event, now, self.policy)
        if action.kind in (Kind.IGNORE, Kind.REFUSE):
            return None
        kind, cursor = action.kind, action.cursor
        if kind is Kind.ADMIT:
            kind = Kind.CALL if self.workflow.checks else Kind.START
        pending = {Kind.CALL: 'call', Kind.START: 'send', Kind.POLL: 'poll', Kind.OBSERVE: 'observe'}.get(kind, '')
        if action.abort_job:
            pending += '+abort'
        if kind is Kind.START:
            rules.on_issue(state._replace(cursor=cursor), cursor.step, cursor.direction is Direction.UNDO)
        cursor = self.bounded(cursor)
        return state._replace(cursor=cursor, epoch=state.epoch + (kind is Kind.START), pending=pending, half=None,
                              debts=state.debts | set(action.debts))

    def bounded(self, cursor):
        """Forget what only counts: texts, and how often something was tried beyond what decides."""
        limit = self.policy.step_attempts
        return Cursor(cursor.status, cursor.phase, cursor.step, cursor.direction, min(cursor.attempt, limit + 1),
                      min(cursor.failures, limit), min(cursor.silent_since, 1), cursor.begun, cursor.no_return, cursor.abort, 0,
                      'error' if cursor.error else '')

    def conductor(self, state):
        """Do what was decided; take up what is due; be asked to abort."""
        if state.pending:
            yield from self.perform(state)
        elif not state.cursor.status.terminal:
            after = self.decide(state, stimulus.Due())
            if after:
                yield 'due', False, after
        if self.aborts and not state.aborted:
            after = self.decide(state._replace(aborted=True), stimulus.Abort())
            if after:
                yield 'abort', False, after

    def perform(self, state):
        """Carry out the pending action, or part of it."""
        what, abort = state.pending.removesuffix('+abort'), state.pending.endswith('+abort')
        if abort:
            base = state._replace(pending=what)
            if SOURCE not in state.down and state.hypervisors.job == 'copying':
                stopped = state.hypervisors._replace(job='', destination=GuestState.ABSENT)
                yield 'job aborted', False, self.job_ends(base._replace(hypervisors=stopped), 'failed')
            yield 'abort finds no job', False, base
            return
        base, cursor = state._replace(pending=''), state.cursor
        match what:
            case 'call':
                if state.down:
                    yield 'check unanswered', False, self.decide(base, stimulus.Silent('a host'))
                else:
                    yield 'checks fit', False, self.decide(base, stimulus.Checked())
                    yield 'checks refuse', False, self.decide(base, stimulus.Checked(('no',)))
            case 'send':
                request = Request(self.role(cursor.step), cursor.step, cursor.attempt, state.epoch)
                older = {r for r in base.requests if (r.method, r.attempt) == (request.method, request.attempt)}
                yield 'send', False, base._replace(requests=base.requests - older | {request})
                if older:       # one copy of a request at a time: the older one may be the one that arrives
                    yield 'send, overtaken', False, base
            case 'poll':
                yield from self.poll(base)
            case 'observe':
                yield from self.look(state)

    def poll(self, base):
        """Ask the agent for the current operation."""
        cursor, role = base.cursor, self.role(base.cursor.step)
        if role in base.down:
            for name, now in (('poll unanswered', 1), ('host lost', LONG)):
                after = self.decide(base, stimulus.Silent(role), now)
                yield name, False, after or base
            return
        found = next((o for o in base.journal if (o.method, o.attempt) == (cursor.step, cursor.attempt)), None)
        if found is None:
            event = stimulus.Unknown()
        elif found.state in ('accepted', 'running'):
            event = stimulus.Alive()
        else:
            event = stimulus.Finished(OperationState(found.state), '' if found.state == 'succeeded' else 'no')
        yield 'poll', False, self.decide(base, event) or base

    def look(self, state):
        """Ask the source, and later the destination: the world may change in between."""
        if state.half is None:
            fenced, here = self.ask(state, SOURCE)
            yield 'observe source', False, fenced._replace(half=here)
            return
        fenced, there = self.ask(state, DESTINATION)
        base = fenced._replace(pending='', half=None)
        for now in (1, LONG):
            after = self.decide(base, stimulus.Observed(state.half, there), now)
            yield 'observe destination', False, after or base

    def ask(self, state, role):
        """A host says where the guest is, and from then on takes no request that was sent before it was asked."""
        if role in state.down:
            return state, UNREACHABLE
        said = state.hypervisors.at(role)
        if any(o.role == role and o.method == 'live_migration' and o.state == 'accepted' for o in state.journal):
            said = dataclasses.replace(said, job_active=True)
        index = ROLES.index(role)
        seen = tuple(max(e, state.epoch + 1) if i == index else e for i, e in enumerate(state.seen)) if self.fences else state.seen
        return state._replace(seen=seen), said

    # --- agents ---

    def agents(self, state):
        """Requests arrive, operations run and end, reports arrive."""
        for request in state.requests:
            if request.role not in state.down:
                yield from self.arrive(state, request)
        for op in state.journal:
            if op.state == 'accepted' and op.role not in state.down:
                yield from self.begin(state, op)
        for op in state.reports:
            yield f'report {op.method}', False, self.report(state, op)

    def arrive(self, state, request):
        """An agent judges a request: known, outdated, or new."""
        base = state._replace(requests=state.requests - {request})
        known = any((o.method, o.attempt) == (request.method, request.attempt) for o in state.journal)
        index = ROLES.index(request.role)
        if known or request.epoch < state.seen[index]:
            yield 'known or stale request', False, base
            return
        seen = tuple(max(e, request.epoch) if i == index else e for i, e in enumerate(state.seen))
        op = Operation(request.role, request.method, request.attempt, 'accepted', request.epoch)
        yield f'accept {request.method}', False, base._replace(seen=seen, journal=state.journal | {op})

    def begin(self, state, op):
        """An operation does its work when it is its turn, unless a newer request came meanwhile; the hypervisor's call ends later."""
        if op.epoch < state.seen[ROLES.index(op.role)]:
            yield f'{op.method} is outdated', False, self.finish(state, op, 'failed')
            return
        hypervisors, well = run(op.method, state.hypervisors)
        moved = state._replace(hypervisors=hypervisors)
        if op.method == 'live_migration' and well:
            yield 'job starts', False, self.replace(moved, op, 'running')
            return
        yield f'{op.method} ends', False, self.finish(moved, op, 'succeeded' if well else 'failed')
        if state.faults < self.faults and op.method != 'live_migration':
            lost = state._replace(faults=state.faults + 1)
            yield f'{op.method} fails', True, self.finish(lost, op, 'failed')

    @staticmethod
    def replace(state, op, word):
        """Write a new state of an operation into the journal."""
        return state._replace(journal=state.journal - {op} | {op._replace(state=word)})

    def finish(self, state, op, word):
        """An operation ends: journal, then report."""
        after = self.replace(state, op, word)
        return after._replace(reports=after.reports | {op._replace(state=word)})

    def job_ends(self, state, outcome):
        """The hypervisor's call returns, to an agent that may be gone."""
        op = next((o for o in state.journal if o.state == 'running'), None)
        # Nobody hears it at an agent that is down; the journal says `interrupted` when it is back.
        return self.finish(state, op, outcome) if op and outcome and op.role not in state.down else state

    def report(self, state, op):
        """A report arrives at the conductor, who may have gone on long ago."""
        base = state._replace(reports=state.reports - {op})
        cursor = state.cursor
        if (op.method, op.attempt) != (cursor.step, cursor.attempt):
            return base
        event = stimulus.Finished(OperationState(op.state), '' if op.state == 'succeeded' else 'no')
        return self.decide(base, event) or base

    # --- what goes wrong ---

    def failures(self, state):
        """Lose, double, crash, go silent."""
        worse = state._replace(faults=state.faults + 1)
        for request in state.requests:
            yield 'request lost', True, worse._replace(requests=state.requests - {request})
            if request.role not in state.down:
                for _name, _fault, after in self.arrive(worse, request):
                    yield 'request doubled', True, after._replace(requests=after.requests | {request})
        for op in state.reports:
            yield 'report lost', True, worse._replace(reports=state.reports - {op})
            yield 'report doubled', True, self.report(worse, op)._replace(reports=state.reports)
        if state.pending:
            yield 'conductor dies', True, worse._replace(pending='', half=None)
        for role in ROLES:
            if role not in state.down:
                # Whether what it was doing was done is as the journal and the hypervisors have it.
                yield f'{role} agent dies', True, worse._replace(down=state.down | {role})

    def recover(self, state):
        """An agent is back: what it had not ended is interrupted, and what it had not told is told."""
        for role in state.down:
            lost = {o for o in state.journal if o.role == role and o.state in ('accepted', 'running')}
            cut = {o._replace(state='interrupted') for o in lost}
            yield f'{role} agent is back', False, state._replace(
                down=state.down - {role}, journal=state.journal - lost | cut, reports=state.reports | cut)

    def all_steps(self, state):
        """Give every step, the return of agents included."""
        yield from self.steps(state)
        yield from self.recover(state)


def canonical(state):
    """Forget what can make no difference any more, so that states which behave alike are one.

    A request that its agent knows already, or that is outdated, will do nothing when it arrives. A report of an operation that the
    workflow has left behind will be dropped. Of the journal, what nobody will ask for is forgotten. Of epochs only the order counts.
    """
    known = {(o.method, o.attempt) for o in state.journal}
    requests = [r for r in state.requests if (r.method, r.attempt) not in known and r.epoch >= state.seen[ROLES.index(r.role)]]
    here = (state.cursor.step, state.cursor.attempt)
    journal = [o for o in state.journal if o.state in ('accepted', 'running') or (o.method, o.attempt) == here]
    known = sorted({state.epoch, state.epoch + 1, *state.seen, *(r.epoch for r in requests), *(o.epoch for o in journal)})
    rank = {epoch: i for i, epoch in enumerate(known)}
    return state._replace(
        epoch=rank[state.epoch], seen=tuple(rank[e] for e in state.seen), aborted=state.aborted or state.cursor.status.terminal,
        requests=frozenset(r._replace(epoch=rank[r.epoch]) for r in requests),
        journal=frozenset(o._replace(epoch=rank[o.epoch] if o.state == 'accepted' else 0) for o in journal),
        reports=frozenset(o._replace(epoch=0) for o in state.reports if (o.method, o.attempt) == here))


class Result:
    """What a search found. broken: (rule, the way to it) or None. stuck: states without a way to an end."""

    def __init__(self):
        self.visited = 0
        self.transitions = 0
        self.ends = collections.Counter()
        self.broken = None
        self.stuck = []


def search(model, limit=3_000_000):
    """Visit every state; returns a Result. Stops at the first broken rule, or when more than `limit` states are found."""
    first = canonical(State(Cursor(phase=Phase.QUEUED)))
    came_from, queue, result = {first: None}, collections.deque([first]), Result()
    ways_back = collections.defaultdict(list)
    ended = []
    while queue:
        state = queue.popleft()
        try:
            rules.always(state)
            rules.at_end(state)
            if state.cursor.status.terminal and not state.pending and not state.requests:
                ended.append(state)
            for name, fault, after in model.all_steps(state):
                result.transitions += 1
                after = canonical(after)
                if not fault:
                    ways_back[after].append(state)
                if after not in came_from:
                    if len(came_from) >= limit:
                        raise OverflowError(f'more than {limit} states')
                    came_from[after] = (state, name)
                    queue.append(after)
        except (Broken, AssertionError) as error:
            result.broken = (str(error), way_to(state, came_from))
            break
    result.visited = len(came_from)
    result.ends.update(s.cursor.status.value for s in ended)
    if not result.broken:
        result.stuck = find_stuck(came_from, ways_back, ended)
    return result


def way_to(state, came_from):
    """Give the names of the steps that led to a state."""
    names = []
    while came_from[state]:
        state, name = came_from[state]
        names.append(name)
    return names[::-1]


def find_stuck(came_from, ways_back, ended):
    """Give the ways to states from which no fault-free way leads to an end."""
    good, queue = set(ended), collections.deque(ended)
    while queue:
        for before in ways_back[queue.popleft()]:
            if before not in good:
                good.add(before)
                queue.append(before)
    return [(state, way_to(state, came_from)) for state in came_from if state not in good]


def main():
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--faults', type=int, default=2)
    parser.add_argument('--attempts', type=int, default=2)
    arguments = parser.parse_args()
    began = time.monotonic()
    result = search(Model(faults=arguments.faults, attempts=arguments.attempts))
    print(f'{result.visited} states, {result.transitions} transitions in {time.monotonic() - began:.1f} s; ends: {dict(result.ends)}')
    if result.broken:
        print('BROKEN:', result.broken[0], *result.broken[1], sep='\n  ')
    for state, way in result.stuck[:3]:
        print('STUCK:', state.cursor, *way, sep='\n  ')
    return 1 if result.broken or result.stuck else 0


if __name__ == '__main__':
    raise SystemExit(main())
