"""The driver for libvirt and QEMU, with KVM or without.

`driver` is what the agent loads. `observe` (what is there), `guests` (create, start, stop, delete) and `migration` (the steps of
a live migration) hold the work; they stand on `connection` (libvirtd), `domains` (single calls on one guest), `storage` (directories,
disks, markers) and the pure modules `domain_xml`, `capabilities` and `disk_format`.
"""
