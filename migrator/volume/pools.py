"""The directories of an array's pools, each known again by a mark: a file system that is not mounted looks like a pool that is empty.

What is not there must not be taken for what was removed: a LUN would be forgotten that has data, and another one be made where the mount
hides it later. So a pool that has had a LUN has a file with a mark, the agent remembers the marks, and where one is missing nothing
is read and nothing is made.
"""
import collections.abc
import json
import os
import uuid

from migrator import concurrency, exceptions
from migrator.volume import durable

#: The file with a pool's mark.
MARK = '.lun-pool'


class Pools(collections.abc.Mapping):
    """{pool: directory}; KeyError for a pool that is not configured, DriverError in words for one that is not there.

    directories: as configured. memory: gives the path of the file that remembers the marks; '' remembers them as long as this object.
    """

    def __init__(self, directories, memory=lambda: ''):
        self._directories = directories
        self._memory = memory
        self._marks = None
        self._lock = concurrency.native_lock()

    def __getitem__(self, pool):
        directory = self._directories[pool]
        with self._lock:
            self._check(pool, directory)
        return directory

    def __iter__(self):
        return iter(self._directories)

    def __len__(self):
        return len(self._directories)

    def claim(self, pool):
        """See that a pool has a mark that is remembered, before anything is made there. Raises DriverError, or NoSpace."""
        directory = self._directories[pool]
        with self._lock:
            if self._check(pool, directory) is None:
                mark = str(uuid.uuid4())
                durable.write(os.path.join(directory, MARK), mark)
                durable.sync(directory)
                self._remember(pool, mark)

    def _check(self, pool, directory):
        """Give the mark that a pool has and must have; None as long as it has none."""
        if self._marks is None:
            self._marks = self._read_memory()
        known, found = self._marks.get(pool), _read_mark(pool, directory)
        if known is None and found is not None:
            self._remember(pool, found)
        elif found != known:
            remedy = f' If it is to be used from now on, remove {self._memory()} and restart the agent.' if self._memory() else ''
            raise exceptions.DriverError(
                f'pool {pool}: {directory} is not what it was: the mark in {MARK} is {"missing" if found is None else "another one"}. '
                f'Mount its file system.{remedy}')
        return found

    def _remember(self, pool, mark):
        marks = {**self._marks, pool: mark}
        path = self._memory()
        if path:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                durable.write(path, json.dumps(marks))
                durable.sync(os.path.dirname(path))
            except OSError as error:
                raise durable.no_room(error, path) from error
        self._marks = marks

    def _read_memory(self):
        path = self._memory()
        if not path:
            return {}
        try:
            with open(path, encoding='utf-8') as stream:
                marks = json.load(stream)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise exceptions.DriverError(f'{path} cannot be read, so that it is not known which pools there were: {error}') from error
        if not isinstance(marks, dict) or not all(isinstance(mark, str) for mark in marks.values()):
            raise exceptions.DriverError(f'{path} does not hold the marks of pools. What it should be is in {MARK} of each pool')
        return marks


def _read_mark(pool, directory):
    """Give the mark in a directory, None if there is none."""
    try:
        with open(os.path.join(directory, MARK), encoding='utf-8') as stream:
            return stream.read(80)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise exceptions.DriverError(f'pool {pool}: {directory} cannot be read: {error}') from error
