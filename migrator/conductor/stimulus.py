"""What can happen to a workflow, as data. `decide.next_action` takes one of these; nothing else moves a workflow. Pure."""
import dataclasses

from migrator.rpc.facts import Location
from migrator.states import OperationState


@dataclasses.dataclass(frozen=True)
class Due:
    """Its time to be looked at again has come."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """Both checks answered. reasons: what speaks against it; empty: possible."""

    reasons: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Finished:
    """An agent reported that the current operation ended. untouched: it failed by a precondition, and nothing was changed."""

    state: OperationState
    error: str = ''
    untouched: bool = False


@dataclasses.dataclass(frozen=True)
class Alive:
    """The agent that was asked says that the current operation still runs."""


@dataclasses.dataclass(frozen=True)
class Unknown:
    """The agent that was asked has never heard of the current operation."""


@dataclasses.dataclass(frozen=True)
class Silent:
    """A host did not answer; nothing is known. dead: but somebody has attested that it is off, so there is nothing to wait for."""

    host: str = ''
    dead: bool = False


@dataclasses.dataclass(frozen=True)
class Refused:
    """The agent took the request and will not do it now (no room, stopping, another process, expired)."""

    why: str


@dataclasses.dataclass(frozen=True)
class Observed:
    """Both hosts were asked where the guest is; a host without an answer is UNREACHABLE."""

    source: Location
    destination: Location


@dataclasses.dataclass(frozen=True)
class Recover:
    """Somebody wants it to be looked at now."""


@dataclasses.dataclass(frozen=True)
class Abort:
    """Somebody wants it to end where it began."""

    user: str = ''
