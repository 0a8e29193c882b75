"""What the way to another service can do to a request, as errors of our own.

The difference that matters is whether the request may have been carried out. `NotDelivered` and the two complaints about the
contract mean that it was not; `NoAnswer` means that nobody knows, so the caller asks again, or observes, and never concludes.
"""
from migrator import exceptions


class NoAnswer(exceptions.MigratorError):
    """No answer came in time; the request may or may not have arrived. host: who was asked, where the caller noted it."""

    exit_code = 6
    host = ''


class NotDelivered(exceptions.MigratorError):
    """The request was not delivered: nobody has ever listened there, or the broker cannot be reached.

    One rare case is left: a broker that restarts between two attempts to hand over one message may report the second attempt
    after it delivered the first. Every request that changes something has an op_id or a request_id, so sending it again is safe.
    host: who was asked, where the caller noted it.
    """

    exit_code = 6
    host = ''


class NoSuchMethod(exceptions.InvalidRequest):
    """The other side has no such method; nothing was done."""

    host = ''


class UnsupportedVersion(exceptions.InvalidRequest):
    """The other side does not speak that version, or the version cap forbids to send it; nothing was done."""

    host = ''
