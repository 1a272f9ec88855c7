"""Tasks, from `nodeset` to their end.

    core        what all share: the one way a task moves, with its effects, and what is kept in memory
    requests    what people and nodes ask for: create, cancel, boot, claim
    hearing     what nodes say: events, signs of life, progress
    upkeep      what time asks for: free slots, silence, waiting cancels, figures to write, remains to sweep
    recovery    what a restart asks for

`rules` and `leases` are pure; `orders` writes what a claim is answered with; `accounts` says who may speak to the broker.
"""
