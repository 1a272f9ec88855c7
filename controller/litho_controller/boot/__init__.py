"""What a node boots with.

cmdline    the agent's words, with the one-time token, and the file that holds them while a task is armed
words      words of the administrator's that may stand on a kernel command line, whatever writes it (pure)
macs       what stands in mac.mac, and which node an address means (pure)
facts      what xCAT's tables say of a node's boot
plan       kernel, initrd and words of one node (pure)
ipxe       scripts for iPXE (pure)
"""
