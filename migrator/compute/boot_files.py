"""Which files of a host a guest may be booted from: whoever may create guests must not get at any other file through them. Pure."""
from migrator import exceptions


def check(paths, directories, host, resolve):
    """Raise InvalidRequest in words unless each path lies in one of the directories.

    directories: of [compute] boot_file_paths. host: migrator's name of it, for the words. resolve: makes a path absolute and plain, of a
    real host with symbolic links followed. Nothing is said of whether a file exists elsewhere.
    """
    for path in paths:
        within = [resolve(directory).rstrip('/') + '/' for directory in directories if directory.startswith('/')]
        if not path.startswith('/') or not resolve(path).startswith(tuple(within)):
            raise exceptions.InvalidRequest(f'{path} is in none of the directories of {host} from which guests may be booted: '
                                            f'{", ".join(directories) or "there is none"}')


def of(spec):
    """Give the boot files that an InstanceSpec names. Raises InvalidRequest for an initrd without a kernel."""
    if spec.initrd and not spec.kernel:
        raise exceptions.InvalidRequest('an initrd needs a kernel')
    return [path for path in (spec.kernel, spec.initrd) if path]

