"""Checks of a request's form, the same at both ends: size and the names of its arguments."""
import json

from migrator import exceptions
from migrator.rpc import contract


def size(value):
    """Tell how many bytes `value` takes as JSON. Raises InvalidRequest if JSON cannot hold it."""
    try:
        return len(json.dumps(value, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise exceptions.InvalidRequest(f'cannot be sent: {error}') from None


def check_size(what, value):
    """Raise PayloadTooLarge if `value` is beyond contract.MAX_PAYLOAD; `what` names it in the error."""
    found = size(value)
    if found > contract.MAX_PAYLOAD:
        raise exceptions.PayloadTooLarge(f'{what} has {found} bytes, the limit is {contract.MAX_PAYLOAD}')


def check_arguments(method, arguments):
    """Check a request against its entry in the contract: exactly the named arguments, later ones or not, and not too large.

    Raises InvalidRequest.
    """
    unknown = sorted(set(arguments) - set(method.arguments) - {name for name, _ in method.added})
    missing = [name for name in method.arguments if name not in arguments]
    if unknown:
        raise exceptions.InvalidRequest(f'{method.name} has no argument {", ".join(unknown)[:200]}')
    if missing:
        raise exceptions.InvalidRequest(f'{method.name} needs {", ".join(missing)}')
    check_size(f'the request {method.name}', arguments)
