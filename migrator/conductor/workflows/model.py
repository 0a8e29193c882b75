"""What a workflow table is made of. Data only: no I/O, no clock, standard library, states and conditions."""
import dataclasses
import enum

from migrator.conductor.workflows.conditions import CONDITIONS, against
from migrator.states import AgentKind, Status


class Role(enum.StrEnum):
    """Which of the two hosts does a step. Work on a single host happens at the source. Each is one agent, of one kind."""

    SOURCE = 'source'
    DESTINATION = 'destination'


class Mode(enum.StrEnum):
    """How a step is issued; the RPC contract says the same of the method."""

    CALL = 'call'
    SPAWN = 'spawn'


class Commit(enum.StrEnum):
    """What the catalogue learns in the very transaction that records a step's proof."""

    NOTHING = ''
    AT_DESTINATION = 'instance.host = destination'
    CREATED = 'instance exists'
    RUNNING = 'instance.state = running'
    STOPPED = 'instance.state = stopped'
    DELETED = 'instance removed'
    VOLUME_CREATED = 'volume.status = available'
    VOLUME_DELETED = 'volume removed'
    EXTENDED = 'volume.size'
    ATTACHED = 'attachment.status = attached'
    DETACHED = 'attachment removed'
    ATTACHABLE = 'volume.host, locator = destination; migration_status = migrating_attachable'
    MOVED = 'volume.host, locator = destination; migration_status = success'
    SUCCESS = 'volume.migration_status = success'

    @property
    def final(self):
        """True where the resource is at the destination from this commit on: there is only forward."""
        return self in (Commit.AT_DESTINATION, Commit.ATTACHABLE, Commit.MOVED)


@dataclasses.dataclass(frozen=True)
class Undo:
    """How the traces of a step are removed.

    vital: a guest's life hangs on it (it may have to be resumed), so it is never put off as a debt; the migration stands in
    needs_operator until it is done. Anything else on a host that does not answer becomes a debt.
    commit: what the catalogue learns once it is undone. agent: of which kind the host's agent is that does it.
    harmless: it touches nothing but what its own step made, so it is due even if the step says that it touched nothing: an agent that
    lost its journal may have done the step once, and refused to do it again.
    """

    method: str
    on: Role
    doing: str = ''
    vital: bool = False
    commit: Commit = Commit.NOTHING
    agent: AgentKind = AgentKind.COMPUTE
    harmless: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the catalogue learns if a step has returned something that fulfils a condition; the first one that holds counts."""

    when: str
    commit: Commit


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of a workflow.

    name: the RPC method. on: the host that does it. agent: of which kind its agent is. status: what the migration is called meanwhile.
    when: the condition on which it is done, one of workflows.conditions; '' is always.
    undo: removes its traces; due as soon as the step may have begun. Several steps may share one.
    doing: what happens in it, in an operator's words.
    observe: the method that tells what is true after it; its own outcome is then only a hint.
    doubt: the method that tells what is true if it did not succeed; its success is proof enough.
    no_return_when: the fact after which there is only forward, in words: it is observed, or the step's own success says it. An abort that
    is pending then comes too late, while a step whose commit alone makes it final can still be undone.
    commit: what the catalogue learns once the step is proven; where there are outcomes, once it is proven by observation.
    outcomes: what the catalogue learns by what it returned. If none holds the step has declined, and has changed nothing.
    declined: what that is called.
    cancel: the method that tells its agent to end it early, for an abort.
    repeat: after an interruption the step is begun again, for it finds its own traces; else it is undone.
    keeps: what an attempt did is kept by the next one, so that only interruptions count that brought nothing.
    owed: it comes after the point of no return; where it cannot be done it is named as a debt, and the workflow goes on.
    vital: it comes after the point of no return, and nothing goes on without it: it is tried until it is done, and after some attempts the
    workflow stands in needs_operator meanwhile.
    """

    name: str
    on: Role
    mode: Mode = Mode.SPAWN
    status: Status = Status.RUNNING
    doing: str = ''
    undo: Undo | None = None
    observe: str = ''
    no_return_when: str = ''
    commit: Commit = Commit.NOTHING
    repeat: bool = False
    owed: bool = False
    agent: AgentKind = AgentKind.COMPUTE
    when: str = ''
    doubt: str = ''
    outcomes: tuple[Outcome, ...] = ()
    declined: str = ''
    cancel: str = ''
    vital: bool = False
    keeps: bool = False

    @property
    def asks(self):
        """The method that tells what is true when that is not certain; '' where there is none."""
        return self.observe or self.doubt

    @property
    def commits(self):
        """Everything that the catalogue may learn by this step."""
        return (self.commit, *(outcome.commit for outcome in self.outcomes))

    def learned(self, known):
        """Give what the catalogue learns by the step's success. known: as for conditions; with what this step returned."""
        if not self.outcomes:
            return self.commit
        return next((o.commit for o in self.outcomes if not against(o.when, known)), Commit.NOTHING)


@dataclasses.dataclass(frozen=True)
class Workflow:
    """A table of steps.

    undo_order: the methods of all undos in the order in which they run, each only if a step of it may have begun. done: what it has come to
    when it is completed, in an operator's words.
    """

    kind: str
    steps: tuple[Step, ...]
    undo_order: tuple[str, ...] = ()
    done: str = ''
    abortable: bool = False

    def __post_init__(self):
        undos = sorted({s.undo for s in self.steps if s.undo}, key=lambda undo: undo.method)
        undos = [undo.method for undo in undos]
        if undos != sorted(self.undo_order):
            raise ValueError(f'{self.kind}: undo_order {self.undo_order} does not name exactly the undos {undos}')
        modes = [s.mode for s in self.steps]
        if modes != sorted(modes):          # "call" sorts before "spawn"
            raise ValueError(f'{self.kind}: checks come first, for they have no traces to undo')
        names = [s.name for s in self.steps] + undos
        if len(set(names)) != len(names):
            raise ValueError(f'{self.kind}: a method stands in the table twice: {sorted(names)}')
        if not self.operations:
            raise ValueError(f'{self.kind}: there is no operation in it')
        self._check_conditions()
        self._check_no_return()
        for role in Role:
            if len(self._kinds(role)) > 1:
                raise ValueError(f'{self.kind}: the {role.value} is one agent, and cannot be of several kinds: {self._kinds(role)}')

    def _check_conditions(self):
        for step in self.steps:
            unknown = {step.when, *(outcome.when for outcome in step.outcomes)} - {'', *CONDITIONS}
            if unknown:
                raise ValueError(f'{self.kind}: {step.name} depends on conditions that do not exist: {sorted(unknown)}')
            if bool(step.outcomes) != bool(step.declined):
                raise ValueError(f'{self.kind}: {step.name} must have both or none of outcomes and declined')

    def _check_no_return(self):
        passed = False
        for step in self.steps:
            if (step.observe and not step.no_return_when) or (step.no_return_when and not step.asks):
                raise ValueError(f'{self.kind}: {step.name} must have both or none of observe and no_return_when')
            if (step.owed or step.vital) and not passed:
                raise ValueError(f'{self.kind}: {step.name} cannot be owed, or vital, before the point of no return')
            passed = passed or any(commit.final for commit in step.commits)

    @property
    def checks(self):
        """The steps that are plain calls; they are issued at once and independently of each other."""
        return tuple(s for s in self.steps if s.mode is Mode.CALL)

    @property
    def operations(self):
        """The steps that are call-then-spawn, in order."""
        return tuple(s for s in self.steps if s.mode is Mode.SPAWN)

    def step(self, name):
        """Find a step by its name, or by the name of its undo. KeyError if there is none."""
        for step in self.steps:
            if step.name == name or (step.undo and step.undo.method == name):
                return step
        raise KeyError(f'{self.kind} has no step {name}')

    def commit_of(self, method):
        """Give what the catalogue learns when a step, or the undo of one, is done, whenever that may be."""
        return self.line(method).commit

    def _kinds(self, role):
        lines = [line for step in self.steps for line in (step, step.undo) if line is not None]
        return sorted({line.agent.value for line in lines if line.on is role})

    def agent(self, role):
        """Give the kind of the agent that has a role; of a role that nobody has, that of the source."""
        return AgentKind((self._kinds(role) or self._kinds(Role.SOURCE) or self._kinds(Role.DESTINATION))[0])

    def line(self, method):
        """Find what says where a method is done: the Step of that name, or the Undo. KeyError if there is none."""
        step = self.step(method)
        return step.undo if step.undo and step.undo.method == method else step

    def undone_by(self, method):
        """Give the steps whose traces an undo removes."""
        return tuple(s for s in self.steps if s.undo and s.undo.method == method)

    def after(self, name):
        """Give the operations after the one named, in order; of '' all. Which of them is done depends on their conditions."""
        names = ['', *(s.name for s in self.operations)]
        return self.operations[names.index(name):]
