"""xCAT's tables.

schema      their shape: names, keys, columns
rows        any row of any of them; `cells` is the strict look at every value that is written
values      columns of nodes as they hold, with what nodes inherit from their groups
nodes       nodes in them, `osimages` what a capture leaves in them
attributes  xCAT's objects as data, `objects` over the tables, `conditions` that select by them
edits       what tabch, tabrestore and nodech do
"""
