"""Partition tables: as data (`table`), on a disk (`device`), fitted to another size (`fit`), and content grown after it
(`grow`).

    capture:  layout = read_layout(disk)            -> layout.table, layout.dump, layout.head, layout.notes restore:
table = parse_dump(text);  fitted = plan_fit(table, ...)          before anything is touched with held(disk,
write=True) as hold: write_table(hold, fitted.table);  ... fill partition_path(disk, n) ...;  write_head(hold, head,
fitted.table)"""

from litho_agent.layout.device import Layout, read_layout, rehearse, write_head, write_table
from litho_agent.layout.fit import Fitted, plan_fit
from litho_agent.layout.kernel import reread
from litho_agent.layout.table import Partition, Table, parse_dump, partition_path

__all__ = [
    "Fitted",
    "Layout",
    "Partition",
    "Table",
    "parse_dump",
    "partition_path",
    "plan_fit",
    "read_layout",
    "rehearse",
    "reread",
    "write_head",
    "write_table",
]
