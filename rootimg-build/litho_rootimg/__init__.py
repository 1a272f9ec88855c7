"""Makes kernel, initrd and root image of the node from Debian packages: `make rootimg`, `python -m litho_rootimg`.

contents.py   what goes in: packages, kernel modules, firmware, and what is left out
sources.py    which of this machine's apt sources are Debian's own (pure)
base.py       mmdebstrap: the packages as a tree, the kernel as a .deb
modules.py    which kernel modules, with all that they need (pure), and their firmware
tree.py       the base made into the node's root: our own files, nothing that differs from build to build
initrd.py     the small initrd: network, fetch, switch
agent.py      the agent with its hash-locked libraries, as an archive of its own
archive.py    cpio, tar, squashfs: the same bytes for the same tree
sbom.py       the list of everything inside, as CycloneDX
stamps.py     what is up to date
build.py      all of it, top to bottom
"""
