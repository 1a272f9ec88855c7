"""The controller over HTTP: a small door for nodes on TCP, the whole API on a unix socket. Its types: `litho_controller.api`."""
