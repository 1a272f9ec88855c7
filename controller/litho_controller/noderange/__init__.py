"""Which nodes a text means: xCAT's noderange grammar, as pure functions.

    range   := element (',' element)*            quotes ' and " count for nothing
    element := ['-'] term ('@' term)*            '@' binds tighter than ',': a,b@c is a and (b and c)
    term    := name | group | '(' range ')' | '/' regex | '^' file | selection | a-b | a:b | a[1-3]b | a+K | digits

* A name that is a node wins over everything, then a dynamic group, then a static group.
* `-element` leaves out. All exclusions of a range apply after all its inclusions, wherever they stand; parentheses are a
  range of their own.
* `n01-n10`, `n01:n10`: one number differs, the rest is equal; zero padding is kept. `n[1-3,5:7]x[1-2]`: several brackets
  multiply. `n01+2` is n01 and the two after it. `8-10` is node8 to node10.
* `/n.*` is a regular expression over whole node names. `nodetype.os==image` (also `=`, `!=`, `=~`, `!~`) selects by a table's
  column; `groups`, `tags` and `mgt` are short for their columns.
* `^/tmp/list` reads a file, one range a line.
* The result is sorted as strings, each node once, without the nodes of site.excludenodes.
* Names that are nothing make the whole range fail, with xCAT's words.

The rules are those of xCAT 2.19's perl-xCAT/xCAT/NodeRange.pm and man3/noderange, seen on a running xcatd. Where xCAT would
quietly take in nodes that nobody named, and a disk may be overwritten because of it, this grammar refuses instead: a sequence
that runs backwards (`n05-n01`, there: n05 to n99), a column that no table has (there: no node, so excluding by it excludes
nothing), an exclusion by a file that cannot be read, `a@-b` (there: a and b). Brackets count only the number inside them:
`n1[9-11]` is n19, n110, n111 (there: n19 to n111). Regular expressions run in linear time (`patterns`), so that a hostile one
cannot stop the daemon.
"""

from litho_controller.noderange.expansion import expand, literal, partial
from litho_controller.noderange.universe import FileReader, LocalFiles, Universe, inline_files

__all__ = ["FileReader", "LocalFiles", "Universe", "expand", "inline_files", "literal", "partial"]
