"""The command line: `litho ...`.

`app` is the root: it finds a command, runs it and turns every error into one sentence and an exit code. `session` is what
every command shares: the settings, the daemon, where output goes. Commands are grouped by what they speak of: `nodes`, `xcat`
(the names an xCAT administrator knows), `tasks`, `images`, `settings`, `serve`. `render` and `stanza` turn data into text,
`live` shows tasks that move. A module of commands is imported when one of its commands is called, so that `litho --help` and
a loop over `nodestat` are quick.
"""
