"""What an agent answers to `audit`: everything on its host that is or may be of a guest or of a migration, as facts without a judgement."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Trace:
    """One thing. kind: domain | job | file | note | temporary | report; agents of other resources add kinds of their own, such as export.

    temporary: a file that stands for another one while that is being made. report: the end of an operation that no conductor has
    acknowledged; `what` is the operation's id, `state` how it ended.
    instance_uuid: '' where it does not tell. what: its name or path. state: of a domain or an operation. migration_id: the migration that
    made it, if it bears one's mark. host: who is in charge of it, if it bears a host's mark. storage: identity of the storage that it lies
    in.
    """

    kind: str
    instance_uuid: str = ''
    what: str = ''
    state: str = ''
    migration_id: str = ''
    host: str = ''
    storage: str = ''

    @property
    def key(self):
        """By what traces are put in order, and a part of an answer says where it ends."""
        return f'{self.kind} {self.instance_uuid} {self.what}'


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the answer.

    operations: ids of operations that have not ended, in the first part. more: the marker of the next part; '' in the last one.
    """

    traces: tuple[Trace, ...] = ()
    operations: tuple[str, ...] = ()
    more: str = ''
