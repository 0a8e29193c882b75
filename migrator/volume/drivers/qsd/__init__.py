"""An array made of one qemu-storage-daemon: LUNs are files in pool directories, reached over NBD.

The daemon keeps nothing across a restart. What it served is in one durable record beside each LUN (`records`), from which the driver
brings back nodes, exports and mirrors as soon as it meets a daemon that is new (`array`). A take-over of another array's LUN, or
of one in another pool, is in `takeover`.
"""
