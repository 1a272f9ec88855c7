"""The lab: real machines in QEMU that boot over a real (bridged) network from the real controller.

preflight.py   can this machine run it? every reason why not
namespace.py   one network, PID and mount namespace for everything; its end is the end of all in it
world.py       processes, logs and ports: what servers and machines share
network.py     the bridge, dnsmasq (DHCP, TFTP)
nfs.py         nfs-ganesha, exporting the library
controller.py  `litho serve` and the `litho` command
wire.py        what nodes say on MQTT, read along on the bridge
watching.py    a job as all of its onlookers see it
machine.py     a node: QEMU, its disks, its serial console
debian.py      a small Debian that boots from a disk, made once and kept
disks.py       partitioned, bootable disks with it
figures.py     the table of scenarios and what was measured in them
netboot.py     a bundle with a system that runs in memory
tiny.py        a disk that boots within seconds, and a library that holds its image
follow.py      what the controller says of tasks and nodes, with times
"""
