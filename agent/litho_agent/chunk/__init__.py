"""The chunk engine: captures and restores partitions chunk by chunk, on all cores, and only what differs.

`usage` tells which bytes are used, `device` reads and writes with direct I/O, `crew` runs the workers; `capture` and
`restore` are the two ways, `delta` the rule that says when reading the target first pays, `readback` compares a disk with its
image. `adapter` is what the agent's jobs call. The formats are in `litho.library.chunks`.
"""
