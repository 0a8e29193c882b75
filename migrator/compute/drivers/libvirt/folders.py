"""The directories of one guest: claiming them for a creation or a migration, handing them over, emptying them.

A guest's directory exists only together with a marker (`markers`): CREATED names the host in charge of it, MIGRATION the migration that
prepares it. A disk of a found guest may lie elsewhere in a storage directory; its marker is a file beside it. Files are removed
only under the right marker, and the marker goes last, so that an interrupted removal can be repeated.
"""
import os

from migrator import exceptions
from migrator.compute.drivers.libvirt import markers
from migrator.compute.drivers.libvirt.storage import check_uuid, console_logs, disk_images, temporaries


class Folders:
    """What lies on this host's storage for guests."""

    def __init__(self, storage):
        self._storage = storage

    # --- creation ---

    def created(self, uuid):
        """List the guest's directories on this host that bear this host's CREATED marker."""
        found = [self._storage.guest_directory(d, uuid) for d in self._storage.directories]
        return [d for d in found if markers.read(os.path.join(d, markers.CREATED)) == self._storage.host]

    def adopt(self, uuid, disks):
        """Take charge of directories with disks of a guest that lives here, though their marker names another host: it was moved by hand.

        disks: paths. The caller has seen the guest alive here and in no migration, which is the evidence.
        """
        for path in self._in_the_name_of_others(uuid):
            if any(os.path.dirname(disk) == path for disk in disks):
                markers.replace(os.path.join(path, markers.CREATED), self._storage.host)

    def _in_the_name_of_others(self, uuid):
        found = [self._storage.guest_directory(d, uuid) for d in self._storage.directories]
        return [d for d in found if markers.read(os.path.join(d, markers.CREATED)) not in ('', self._storage.host)]

    def of_others(self, uuid):
        """Say in words which directories of the guest stay because another host is in charge of them."""
        return [f'{path} stays: {markers.read(os.path.join(path, markers.CREATED))} is in charge of it'
                for path in self._in_the_name_of_others(uuid)]

    def claim_for_creation(self, uuid, directories):
        """Make the guest's directory in each storage directory; DestinationNotEmpty if one is there that no creation made.

        Returns those that were made by this call.
        """
        before = set(self.created(uuid))
        made = []
        for directory in directories:
            path = self._storage.guest_directory(directory, uuid)
            if not markers.claim(path, markers.CREATED, self._storage.host):
                for other in made:
                    self.empty(other, markers.CREATED)
                raise exceptions.DestinationNotEmpty(f'{path} is there already and was not made for this guest by {self._storage.host}')
            if path not in before:
                made.append(path)
        return made

    def empty(self, path, marker):
        """Remove what migrator made in a guest's directory, its marker, and it itself if nothing else is in it.

        Returns '' or in words what stays. PreconditionFailed if a process has a file open.
        """
        files = self._storage.own_files(path)
        self._storage.check_unused(files)
        for file in files:
            markers.remove(file)
        markers.remove(os.path.join(path, marker))
        return markers.discard_directory(path)

    # --- destination ---

    def incoming_marker(self, uuid):
        """Give the path of the host-local note that a guest is expected."""
        return os.path.join(self._storage.incoming_path, check_uuid(uuid))

    def claim_for_migration(self, plan):
        """Mark everything that `plan` will make here; DestinationNotEmpty if something is in the way, then nothing was changed."""
        directories, loose = self._places(plan)
        self._check_free(plan, directories, loose)
        if markers.create(self.incoming_marker(plan.instance_uuid), plan.migration_id) != plan.migration_id:
            raise exceptions.DestinationNotEmpty('another migration of this guest is prepared here')
        for path in directories:
            if not markers.claim(path, markers.MIGRATION, plan.migration_id):
                raise exceptions.DestinationNotEmpty(f'{path} is there already and was not made by this migration')
        for path in loose:
            if markers.create(path + markers.MIGRATION, plan.migration_id) != plan.migration_id:
                raise exceptions.DestinationNotEmpty(f'{path} was made by another migration')

    def _check_free(self, plan, directories, loose):
        other = markers.read(self.incoming_marker(plan.instance_uuid))
        if other not in ('', plan.migration_id):
            raise exceptions.DestinationNotEmpty(f'the guest is prepared here for migration {other}')
        for path in directories:
            if os.path.lexists(path) and markers.read(os.path.join(path, markers.MIGRATION)) != plan.migration_id:
                raise exceptions.DestinationNotEmpty(f'{path} is there already and was not made by this migration')
        for path in loose:
            if os.path.lexists(path) and markers.read(path + markers.MIGRATION) != plan.migration_id:
                raise exceptions.DestinationNotEmpty(f'{path} is there already and was not made by this migration')

    def _places(self, plan):
        """Give (guest directories, single files) that a plan needs on storage of this host's own, checked against the configuration."""
        root = self._storage.instances_path
        directories, loose = [], []
        for disk in self.copied(plan):
            own = self._storage.guest_directory(disk.directory, plan.instance_uuid)
            if os.path.dirname(disk.path) == own:
                directories.append(own)
            else:
                loose.append(disk.path)
        shared = {d.directory for d in plan.disks if d.target not in plan.copy}
        own = self._storage.guest_directory(root, plan.instance_uuid)
        # For the console's log. Where the guest has no disk that would tell whether storage is shared, the marker names the source.
        owner = markers.read(os.path.join(own, markers.CREATED))
        # One of this host's that has no disk in it is what a move by hand left here: it serves again.
        ready = owner == plan.source_host or (owner == self._storage.host and not disk_images(self._storage.own_files(own)))
        if root not in shared and not ready:
            directories.append(own)
        return list(dict.fromkeys(directories)), loose

    def copied(self, plan):
        """List the plan's disks that are copied; InvalidRequest unless each is a file in the configured directory that it names."""
        for disk in plan.disks:
            if disk.target in plan.copy and (disk.kind != 'file' or disk.directory not in self._storage.directories
                                             or self._storage.directory_of(disk.path) != disk.directory):
                raise exceptions.InvalidRequest(f'{disk.path!r:.200} is not in the storage directory {disk.directory!r:.200} of this host')
        missing = set(plan.copy) - {d.target for d in plan.disks}
        if missing:
            raise exceptions.InvalidRequest(f'the plan copies disks that it does not have: {", ".join(sorted(missing))}')
        return [d for d in plan.disks if d.target in plan.copy]

    def marked(self, plan):
        """Give (guest directories, single files) on this host that bear plan.migration_id."""
        directories = [self._storage.guest_directory(d, plan.instance_uuid) for d in self._storage.directories]
        directories = [d for d in directories if markers.read(os.path.join(d, markers.MIGRATION)) == plan.migration_id]
        loose = [d.path for d in self.copied(plan) if markers.read(d.path + markers.MIGRATION) == plan.migration_id]
        return directories, loose

    def discard_migration(self, plan):
        """Remove what bears plan.migration_id; nothing there is success. Returns in words what stays."""
        directories, loose = self.marked(plan)
        self._storage.check_unused([*loose, *(file for d in directories for file in self._storage.own_files(d))])
        stays = [self.empty(d, markers.MIGRATION) for d in directories]
        for path in loose:
            markers.remove(path)
            markers.remove(path + markers.MIGRATION)
        self.forget_incoming(plan)
        return [words for words in stays if words]

    def forget_incoming(self, plan):
        """Remove the host-local note if it is this migration's."""
        path = self.incoming_marker(plan.instance_uuid)
        if markers.read(path) == plan.migration_id:
            markers.remove(path)

    def settle(self, plan, managed):
        """Make what a migration brought this host's own: its markers go, and for a managed guest CREATED comes in their place."""
        directories, loose = self.marked(plan)
        for path in directories:
            if managed:
                markers.replace(os.path.join(path, markers.CREATED), self._storage.host)
            markers.remove(os.path.join(path, markers.MIGRATION))
            if not managed:
                markers.discard_directory(path)  # made for a console's log that a found guest does not have
        for path in loose:
            markers.remove(path + markers.MIGRATION)
        for directory in self._storage.directories if managed else ():
            path = os.path.join(self._storage.guest_directory(directory, plan.instance_uuid), markers.CREATED)
            if markers.read(path) == plan.source_host:  # on shared storage
                markers.replace(path, self._storage.host)
        self._clear_up(plan.instance_uuid)
        self.forget_incoming(plan)

    def _clear_up(self, uuid):
        """Remove temporary files that a crash left beside a guest that is settled here: nobody else is at work on it."""
        for directory in self._storage.directories:
            for path in temporaries(self._storage.guest_directory(directory, uuid)):
                markers.remove(path)

    # --- source ---

    def held_marker(self, uuid):
        """Give the path of the host-local note that a guest is held since its migration broke after the hand-over."""
        return os.path.join(self._storage.held_path, check_uuid(uuid))

    def note_held(self, plan):
        """Write that note."""
        markers.replace(self.held_marker(plan.instance_uuid), plan.migration_id)

    def forget_held(self, uuid):
        """Remove that note; none is success."""
        markers.remove(self.held_marker(uuid))

    def leave(self, plan):
        """Remove at the source what the destination has its own copy of; returns in words what stays.

        PreconditionFailed if a process has a file open, or if a marker says that the files are the destination's: then the storage is
        shared, whatever the plan says, and they are the only copy.
        """
        disks = [d.path for d in self.copied(plan)]
        directories = self._left_directories(plan, disks)
        logs = console_logs(f for d in directories for f in self._storage.own_files(d))
        unfinished = [f for d in directories for f in temporaries(d)]
        self._storage.check_unused([*disks, *logs, *unfinished])
        for path in (*disks, *logs, *unfinished):
            markers.remove(path)
        stays = []
        for path in directories:
            created = os.path.join(path, markers.CREATED)
            others = [n for n in _names(path) if n != markers.CREATED]
            if others:
                stays.append(f'{path} stays: it also holds {", ".join(others[:5])}')
                continue
            markers.remove(created)
            stays.append(markers.discard_directory(path))
        return [words for words in stays if words]

    def _left_directories(self, plan, disks):
        found = []
        shared = {d.directory for d in plan.disks if d.target not in plan.copy}
        for directory in self._storage.directories:
            path = self._storage.guest_directory(directory, plan.instance_uuid)
            if not os.path.lexists(path):
                continue
            owner = markers.read(os.path.join(path, markers.CREATED))
            holds = any(os.path.dirname(disk) == path for disk in disks)
            if holds and (owner not in ('', self._storage.host) or markers.read(os.path.join(path, markers.MIGRATION))):
                raise exceptions.PreconditionFailed(f'{path} belongs to {owner or "the destination"}: the storage is shared after all')
            if holds or (owner == self._storage.host and directory not in shared):
                found.append(path)
        for path in disks:
            if markers.read(path + markers.MIGRATION):
                raise exceptions.PreconditionFailed(f'{path} was made by a migration: the storage is shared after all')
        return found


def _names(path):
    return sorted(os.listdir(path)) if os.path.isdir(path) else []
