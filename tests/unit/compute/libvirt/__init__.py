"""Tests of the libvirt driver's parts that need no libvirtd."""
