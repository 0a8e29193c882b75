"""The steps of the model: what the conductors, the agents and the hypervisors may do next. What goes wrong is in `trouble`.

Every decision is the product's own (`decide.next_action`), made about the product's own table. Messages lie in sets, so that each may
arrive late and in any order.
"""
import dataclasses

from migrator.conductor import stimulus
from migrator.conductor.cursor import Cursor, Direction, Kind, Phase, Policy
from migrator.conductor.decide import next_action
from migrator.states import GuestState, OperationState
from tests.model.state import BUSY, CUT, DESTINATION, LIFELESS, ROLES, SOURCE, UP, Broken, Operation, Request, State, Task
from tests.model.trouble import KINDS, Trouble
from tests.model.world import PRECONDITION

NO_RETURN = 'no undo after the point of no return'
SOON, LATE = 1, 10 ** 9


class Model(Trouble):
    """One workflow in its world.

    faults: how many may happen in one run. attempts: the policy's step_attempts. aborts, deadlines: may there be any. fences: agents refuse
    what is older than the last question. processes: agents refuse what was meant for an earlier process. source_first: it is
    asked before the destination. decide: the pure core. kinds: which kinds of faults there are, of trouble.KINDS.
    judging: decisions are judged, and not only what comes of them.
    """

    def __init__(self, workflow, world, faults=1, attempts=2, aborts=True, deadlines=True, fences=True, processes=True,
                 source_first=True, decide=next_action, kinds=KINDS, judging=True):
        self.workflow = workflow
        self.world = world
        self.faults = faults
        self.judging = judging
        self.kinds = frozenset(kinds)
        if self.kinds - set(KINDS):
            raise ValueError(f'there are no faults of the kinds {sorted(self.kinds - set(KINDS))}; there are {KINDS}')
        self.aborts = aborts
        self.fences = fences
        self.processes = processes
        self.source_first = source_first
        self.next_action = decide
        self.policy = Policy(step_attempts=attempts, completion=0.001 if deadlines else 0)
        self.answers = {}           # what the core was asked -> what it said
        self.cursors = {}           # one object for all equal ones, which the search then recognizes sooner

    def first(self):
        """Give every state in which it may begin."""
        for hv, book in self.world.first():
            for asked in self.world.options():
                yield State(Cursor(phase=Phase.QUEUED), hv, book, told=frozenset({('options', asked)} if asked else ()))

    def role(self, method):
        """Which host does a method."""
        return self.workflow.line(method).on.value

    def steps(self, state):
        """Give every (name, next state) that needs no fault and no host's return."""
        yield from self.conductor(state)
        yield from self.agents(state)
        for name, hv, outcome in self.world.moves(state.world, state.catalogue):
            yield name, self.job_ends(state._replace(world=hv), outcome)

    # --- the conductors ---

    def decide(self, state, event, now=SOON, result=''):
        """Store what an event leads to: the transaction. What is to be sent becomes a task. Unchanged if the event is dropped.

        result: what the operation returned whose end is the event.
        """
        told = state.told | {(state.cursor.step, result)} if result else state.told
        action, cursor = self.decided(state.cursor, event, now, told)
        if action.kind in (Kind.IGNORE, Kind.REFUSE):
            return state
        kind = action.kind
        if kind is Kind.ADMIT:
            kind = Kind.CALL if self.workflow.checks else Kind.START
        undoes = kind is Kind.START and cursor.direction is Direction.UNDO
        if self.judging and undoes and (cursor.no_return or self.world.passed(state.world)):
            raise Broken(NO_RETURN, f'{cursor.step} is issued')
        state = state._replace(cursor=cursor, debts=state.debts | set(action.debts), told=told,
                               epoch=state.epoch + (kind in (Kind.START, Kind.OBSERVE)),
                               locked=state.locked and kind is not Kind.END,
                               catalogue=self.world.learn(action.commit, state.world, state.catalogue))
        if action.guest_off:
            state = state._replace(catalogue=(state.catalogue[0], GuestState.OFF))
        if action.in_turn:
            state = state._replace(in_turn=True, lost=True, catalogue=self.world.unknown(state.catalogue))
        if kind is Kind.END:
            state = state._replace(catalogue=self.world.ended(state.catalogue, cursor.status))
        return state._replace(tasks=state.tasks | self.tasks(state, kind, event, action.abort_job))

    def decided(self, *question):
        """Give the core's action about (cursor, event, now, told), and its cursor as the model keeps it. It is pure, so asked once."""
        if question not in self.answers:
            cursor, event, now, told = question
            try:
                action = self.next_action(self.workflow, cursor, event, now, self.policy, self.world.known(told))
            except AssertionError as error:
                raise Broken(NO_RETURN, str(error)) from error
            after = self.bounded(action.cursor)
            self.answers[question] = action, self.cursors.setdefault(after, after)
        return self.answers[question]

    def tasks(self, state, kind, event, abort_job):
        """Give what a transaction leaves to be done."""
        cursor = state.cursor
        tasks = {Task('abort')} if abort_job else set()
        match kind:
            case Kind.CALL:
                tasks.add(Task('call'))
            case Kind.START:
                tasks.add(Task('send', cursor.step, cursor.attempt, state.epoch))
            case Kind.POLL:
                tasks.add(Task('poll', cursor.step, cursor.attempt))
            case Kind.OBSERVE:
                told = isinstance(event, stimulus.Finished) and event.state is OperationState.SUCCEEDED
                half = ((SOURCE, self.world.locate(state.world, SOURCE)),) if told else ()     # it came with the report
                tasks.add(Task('observe', epoch=state.epoch, half=half))
        return tasks

    def bounded(self, cursor):
        """Forget what only counts: texts, and how often something was tried beyond what decides. Two attempts in a row stay different."""
        limit = self.policy.step_attempts
        beyond = max(0, cursor.attempt - limit - 1) % 2
        return Cursor(cursor.status, cursor.phase, cursor.step, cursor.direction, min(cursor.attempt, limit + 1) + beyond,
                      min(cursor.failures, limit), min(cursor.silent_since, 1), cursor.begun, cursor.no_return, cursor.abort,
                      min(cursor.deadline, SOON + 1), 'error' if cursor.error else '')

    def conductor(self, state):
        """Do what was decided; take up what is due; be asked to abort; collect debts."""
        for task in state.tasks:
            yield from self.perform(state._replace(tasks=state.tasks - {task}), task)
        if not state.tasks and not state.cursor.status.terminal:
            yield 'due', self.decide(state, stimulus.Due())
            if state.cursor.deadline:
                yield 'due, past the deadline', self.decide(state, stimulus.Due(), LATE)
        if self.aborts and self.workflow.abortable and not state.aborted:
            yield 'abort', self.decide(state._replace(aborted=True), stimulus.Abort())
        if state.cursor.status.terminal and not state.tasks:
            for method in state.debts:
                yield from self.pay(state, method)

    def perform(self, base, task):
        """Carry out a task, or part of it; `base` is without it."""
        match task.kind:
            case 'call':
                if all(base.answers(s.on.value) for s in self.workflow.checks):
                    yield 'checks fit', self.decide(base, stimulus.Checked())
                    yield 'checks refuse', self.decide(base, stimulus.Checked(('no',)))
                else:
                    for name, now in (('checks unanswered', SOON), ('checks unanswered for long', LATE)):
                        yield name, self.decide(base, stimulus.Silent('a host'), now)
            case 'send':
                yield from self.send(base, task)
            case 'poll':
                yield from self.poll(base)
            case 'observe':
                yield from self.look(base, task)
            case 'answers':
                yield from self.observed(base, task)
            case 'abort':
                yield from self.cancel(base)

    def send(self, base, task):
        """Send a request. The answer that comes with it may be that it is refused, or missing."""
        request = Request(self.role(task.step), task.step, task.attempt, task.epoch)
        if base.host(request.role) == BUSY:
            yield 'send, refused', self.of_operation(base, task, stimulus.Refused('no room'))
            return
        if base.host(request.role) in LIFELESS:
            yield 'send, unanswered', self.of_operation(base, task, silent(base, request.role))
            return
        older = {r for r in base.requests if (r.method, r.attempt) == (request.method, request.attempt)}
        after = base._replace(requests=base.requests - older | {request})
        yield 'send', after if base.host(request.role) == UP else self.of_operation(after, task, stimulus.Silent(request.role))
        if older:       # one copy of a request at a time: the older one may be the one that arrives
            yield 'send, overtaken', base

    def poll(self, base):
        """Ask the agent for the current operation."""
        cursor, role = base.cursor, self.role(base.cursor.step)
        if not base.answers(role):
            for name, now in (('poll unanswered', SOON), ('host lost', LATE)):
                yield name, self.decide(base, silent(base, role), now)
            return
        found = next((o for o in base.journal if (o.method, o.attempt) == (cursor.step, cursor.attempt)), None)
        if found is None:
            yield 'poll: unknown', self.decide(base, stimulus.Unknown())
        elif found.state in ('accepted', 'running'):
            yield 'poll: alive', self.decide(base, stimulus.Alive())
        else:
            yield f'poll: {found.state}', self.decide(base, finished(found), result=found.result)

    def of_operation(self, state, what, event):
        """Bring the conductor an event that concerns one operation; it is dropped if the workflow has gone on."""
        if (what.step, what.attempt) != (state.cursor.step, state.cursor.attempt):
            return state
        if state.cursor.silent_since:
            return self.decide(state, event, LATE)
        return self.decide(state, event)

    def look(self, base, task):
        """Ask the source and then the destination: the world may change in between. Or, as a defect, in any order."""
        missing = [role for role in ROLES if role not in dict(task.half)]
        for role in missing[:1] if self.source_first else missing:
            asked, said = self.ask(base, role, task.epoch)
            after = task._replace(half=tuple(sorted((*task.half, (role, said)), key=lambda pair: pair[0])))
            if len(after.half) < len(ROLES):
                yield f'observe {role}', asked._replace(tasks=asked.tasks | {after})
            else:
                yield from self.observed(asked, after)
                if base.faults < self.faults and 'conductors' in self.kinds:
                    yield 'FAULT conductor freezes with the answers', asked._replace(
                        tasks=asked.tasks | {after._replace(kind='answers', epoch=0)}, faults=base.faults + 1)

    def observed(self, base, task):
        """Store what the hosts said."""
        half = dict(task.half)
        for name, now in (('observed', SOON), ('observed, after long', LATE)):
            yield name, self.decide(base, stimulus.Observed(half[SOURCE], half[DESTINATION]), now)

    def ask(self, state, role, epoch):
        """A host says where the guest is, and from then on takes no request that was sent before it was asked."""
        if not state.answers(role):
            return state, self.world.attested if role in state.attested else self.world.unreachable
        said = self.world.locate(state.world, role)
        if any(o.role == role and o.method in self.world.jobs and o.state == 'accepted' for o in state.journal):
            said = dataclasses.replace(said, job_active=True)
        return state.see(role, epoch) if self.fences else state, said

    def cancel(self, base):
        """Tell the agent of the current step to cancel the job; it may come too late, or find none."""
        hv = self.world.cancel(base.world)
        if base.cursor.step and base.answers(self.role(base.cursor.step)) and hv is not None:
            yield 'job aborted', self.job_ends(base._replace(world=hv), 'failed')
        else:
            yield 'abort finds no job', base

    def pay(self, state, method):
        """A debt is issued to its host, which checks the precondition: if that is false, it is issued again later."""
        role = self.role(method)
        earlier = self.workflow.undo_order[:self.workflow.undo_order.index(method)] if state.in_turn else ()
        if not state.debts.isdisjoint(earlier):
            return
        if state.host(role) != UP or any(o.role == role and o.state == 'running' for o in state.journal):
            return
        try:
            hv, well = self.world.run(method, state.world)
        except Broken as error:
            if error.name != PRECONDITION:
                raise
            return
        if well or self.world.gone(hv):
            book = self.world.learn(self.workflow.commit_of(method), hv, state.catalogue) if well else state.catalogue
            yield f'debt {method} is paid', state.see(role, state.epoch + 1)._replace(
                epoch=state.epoch + 1, world=hv, catalogue=book, debts=state.debts - {method})

    # --- agents ---

    def agents(self, state):
        """Requests arrive, operations run and end, reports arrive."""
        for request in state.requests:
            if state.host(request.role) in (UP, BUSY):
                yield self.arrive(state, request)
        for op in state.journal:
            if op.state == 'accepted' and state.host(op.role) not in LIFELESS and not self.taken(state, op.role):
                yield from self.begin(state, op)
        for op in state.reports:
            if state.host(op.role) != CUT:
                yield f'report {op.method} {op.state}', self.report(state._replace(reports=state.reports - {op}), op)

    @staticmethod
    def taken(state, role):
        """True while an operation has its turn at a host: the others wait."""
        return any(o.role == role and o.state == 'running' for o in state.journal)

    def arrive(self, state, request):
        """An agent judges a request: known, outdated, too much, or new."""
        base = state._replace(requests=state.requests - {request})
        known = any((o.method, o.attempt) == (request.method, request.attempt) for o in state.journal)
        if known or request.epoch < state.seen[ROLES.index(request.role)] or state.host(request.role) == BUSY:
            return f'{request.method} is not taken', base
        op = Operation(request.role, request.method, request.attempt, 'accepted', request.epoch)
        return f'accept {request.method}', base.see(op.role, op.epoch)._replace(journal=state.journal | {op})

    def begin(self, state, op):
        """An operation does its work when it is its turn, unless a newer request came meanwhile; the hypervisor's job ends later."""
        if op.epoch < state.seen[ROLES.index(op.role)]:
            yield f'{op.method} is outdated', self.finish(state, op, 'failed')
            return
        for hv, well, result in self.world.ways(op.method, state.world):
            moved = state._replace(world=hv)
            if op.method in self.world.jobs and well and not result:
                yield 'job starts', self.replace(moved, op, 'running')
            else:
                yield f'{op.method} ends {result}'.strip(), self.finish(moved, op, 'succeeded' if well else 'failed', result)

    @staticmethod
    def replace(state, op, word, result=''):
        """Write a new state of an operation into the journal."""
        return state._replace(journal=state.journal - {op} | {op._replace(state=word, result=result)})

    def finish(self, state, op, word, result=''):
        """An operation ends: journal, then report."""
        return self.replace(state, op, word, result)._replace(reports=state.reports | {op._replace(state=word, result=result)})

    def job_ends(self, state, outcome):
        """The hypervisor's call returns, to an agent that may be gone."""
        op = next((o for o in state.journal if o.state == 'running'), None)
        # Nobody hears it at an agent that is dead; the journal says `interrupted` when it is back.
        word, _, result = outcome.partition(':')
        return self.finish(state, op, word, result) if op and outcome and state.host(op.role) not in LIFELESS else state

    def report(self, state, op):
        """A report arrives at the conductor, who may have gone on long ago."""
        if (op.method, op.attempt) != (state.cursor.step, state.cursor.attempt):
            return state
        return self.decide(state, finished(op), result=op.result)


def silent(state, role):
    """Say that a host does not answer; for one that is attested to be off, that is final."""
    return stimulus.Silent(role, dead=role in state.attested)


def finished(op):
    """Turn an ended operation into what the conductor is told."""
    word = {'refused': 'failed'}.get(op.state, op.state)
    return stimulus.Finished(OperationState(word), '' if word == 'succeeded' else 'no', untouched=op.state == 'refused')
