"""Images read over HTTP, from one source or several: answers (one strict parser), wire (a connection), web (one server),
standing (pure: whom to ask next, whom to leave), several (all sources together) and opened (a library for one job).
"""
