"""Who asks and for which migration: the context that travels with every request and stands on every log line.

Only three short texts cross the wire. They come from a peer and end up in log lines, so whatever is not printable is dropped.
"""
import contextlib
import functools

import oslo_messaging
from oslo_context import context as oslo_context

_LONGEST = 128


class MigratorContext(oslo_context.RequestContext):
    """Context of one request.

    request_id: as the caller gave it, or a new one. migration_id: '' while there is none. user: who asked, '' for migrator itself.
    Unless `overwrite` is False it becomes the current context of the calling thread, which is where oslo.log finds it.
    """

    def __init__(self, request_id=None, migration_id='', user='', overwrite=True, **kwargs):
        super().__init__(request_id=request_id or None, user_id=user or None, overwrite=overwrite, **kwargs)
        self.migration_id = migration_id or ''

    @property
    def user(self):
        """Who asked; '' for migrator itself."""
        return self.user_id or ''

    def to_dict(self):
        """Give what crosses the wire."""
        return {'request_id': self.request_id, 'migration_id': self.migration_id, 'user': self.user}

    def get_logging_values(self):
        """Give what log formats may name."""
        return super().get_logging_values() | {'migration_id': self.migration_id or '-'}

    @classmethod
    def from_dict(cls, values, **kwargs):
        """Make a context, current in this thread, from what came over the wire. Never raises: a bad value is left out."""
        values = values if isinstance(values, dict) else {}
        return cls(**{name: _clean(values.get(name)) for name in ('request_id', 'migration_id', 'user')}, **kwargs)


def _clean(value):
    if not isinstance(value, str):
        return ''
    return ''.join(c for c in value[:_LONGEST] if c.isprintable())


def clear():
    """Forget the current context of this thread, so that a pool's next task does not inherit it."""
    store = oslo_context._request_store
    if hasattr(store, 'context'):
        del store.context


@contextlib.contextmanager
def using(context):
    """Make `context` the current one of this thread for the length of a with block."""
    previous = oslo_context.get_current()
    if context is not None:
        context.update_store()
    try:
        yield context
    finally:
        if previous is not None:
            previous.update_store()
        else:
            clear()


def bind(fn):
    """Wrap `fn` so that it runs under the context that is current now, in whatever thread it is called (a native one, say)."""
    context = oslo_context.get_current()

    @functools.wraps(fn)
    def bound(*args, **kwargs):
        with using(context):
            return fn(*args, **kwargs)
    return bound


class ContextSerializer(oslo_messaging.Serializer):
    """Carry MigratorContext; arguments and results are plain JSON already."""

    def serialize_entity(self, ctxt, entity):
        """Pass a value on."""
        return entity

    def deserialize_entity(self, ctxt, entity):
        """Pass a value on."""
        return entity

    def serialize_context(self, ctxt):
        """Give the context as a dict."""
        return ctxt.to_dict()

    def deserialize_context(self, ctxt):
        """Make the context current in this thread."""
        return MigratorContext.from_dict(ctxt)
