"""The lab: real machines in QEMU that boot over a real (bridged) network from the real controller.

namespace.py   one network, PID and mount namespace for everything; its end is the end of all in it
world.py       processes, logs and ports: what servers and machines share
network.py     the bridge, dnsmasq (DHCP, TFTP)
nfs.py         nfs-ganesha, exporting the library
controller.py  `litho serve` and the `litho` command
machine.py     a node: QEMU, its disks, its serial console
debian.py      a small Debian that boots from a disk, made once and kept
disks.py       partitioned, bootable disks with it
"""
