"""Reading what users type: identities, sizes, disks. Whatever is wrong is refused here with InvalidRequest, before anything is sent."""
from migrator import exceptions
from migrator.rpc import facts

UNITS = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
MIB = 1 << 20
DISK_KEYS = ('target', 'size', 'format', 'backing', 'directory', 'serial')
VOLUME_KEYS = ('target', 'uri', 'serial', 'format')
#: Digits that a number may have; Python does not even read those of some thousand.
LONGEST = 30


def size(text, unit=1):
    """Read a size: a whole number, or one with the suffix K, M, G or T (powers of 1024). Returns bytes.

    unit: bytes that a number without a suffix counts. Raises InvalidRequest.
    """
    digits = text.rstrip('KMGTkmgt') if text[:1].isdigit() else ''
    suffix = text[len(digits):].upper()
    if not digits.isascii() or not digits.isdigit() or len(digits) > LONGEST or suffix not in UNITS:
        raise exceptions.InvalidRequest(f'{text!r:.60} is not a size; a size is a whole number, with K, M, G or T for powers of 1024')
    return int(digits) * (UNITS[suffix] if suffix else unit)


def mib(text, what, low, high):
    """Read an amount in MiB; a suffix is allowed. Returns MiB; raises InvalidRequest unless it lies in [low, high]."""
    count, rest = divmod(size(text, MIB), MIB)
    if rest:
        raise exceptions.InvalidRequest(f'{what} must be whole MiB, not {text}')
    return bounded(count, what, low, high)


def bounded(number, what, low, high):
    """Check that a number lies in [low, high]; returns it, raises InvalidRequest."""
    if not low <= number <= high:
        raise exceptions.InvalidRequest(f'{what} must be between {low} and {high}, not {number}')
    return number


def uuid(text, what):
    """Read a uuid, in whichever case."""
    if not facts.UUID.match(text.lower()):
        raise exceptions.InvalidRequest(f'{text!r:.60} is not {what}: that is a uuid such as 9f3c2a10-5b7e-4c1d-8a6f-0123456789ab')
    return text.lower()


def host(text):
    """Read the name of a host."""
    if not facts.HOST.match(text):
        raise exceptions.InvalidRequest(f'{text!r:.60} is not the name of a host')
    return text


def instance(text):
    """Read an instance's uuid or name."""
    return called(text, 'the instance')


def called(text, what):
    """Read a uuid, in whichever case, or a name."""
    words(text, what, 128)
    return text.lower() if facts.UUID.match(text.lower()) else text


def words(text, what, longest):
    """Read a short printable text."""
    if not text or len(text) > longest or not text.isprintable():
        raise exceptions.InvalidRequest(f'{what} must be a printable text of 1 to {longest} characters')
    return text


def request_id(text):
    """Read a request id; None stays None."""
    return None if text is None else words(text, 'the request id', 128)


def disk(text):
    """Read --disk: target=vda,size=1G[,format=qcow2|raw][,backing=PATH][,directory=DIR][,serial=TEXT]. Returns a NewDisk as a dict.

    The size may be left out with a backing file: it is then the backing file's.
    """
    values = pairs('--disk', text, DISK_KEYS)
    if 'size' not in values and 'backing' not in values:
        raise exceptions.InvalidRequest(f'--disk {text!r:.100} needs size=, or backing= to take the size from')
    if 'size' in values:
        values['size'] = size(values['size'])
        if not values['size']:
            raise exceptions.InvalidRequest(f'--disk {text!r:.100}: a disk of size 0 is of no use')
    return values


def volume(text):
    """Read --volume: target=vdb,uri=nbd://HOST:PORT/EXPORT[,serial=TEXT][,format=raw]. Returns a NewDisk as a dict."""
    values = pairs('--volume', text, VOLUME_KEYS)
    if 'uri' not in values:
        raise exceptions.InvalidRequest(f'--volume {text!r:.100} needs uri=')
    return {'format': 'raw', **values}


def pairs(option, text, keys):
    """Read KEY=VALUE,… with `,,` for a comma in a value. Each key once and none but `keys`; `target` is needed."""
    values = {}
    for part in text.replace(',,', '\0').split(','):
        key, equals, value = part.replace('\0', ',').partition('=')
        if key not in keys:
            raise exceptions.InvalidRequest(f'{option} has no key {key!r:.60}; it has {", ".join(keys)}')
        if not equals or not value:
            raise exceptions.InvalidRequest(f'{option}: {key} has no value')
        if key in values:
            raise exceptions.InvalidRequest(f'{option}: {key} is there twice')
        values[key] = value
    if 'target' not in values:
        raise exceptions.InvalidRequest(f'{option} {text!r:.100} needs target=, such as target=vda')
    return values
