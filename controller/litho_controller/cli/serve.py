"""`litho serve`: the controller itself, in the foreground, until it is told to stop."""

from __future__ import annotations

import logging

import click

from litho_controller.cli.session import Session, pass_session


@click.command()
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much to say on standard error.",
)
@pass_session
def serve(session: Session, log_level: str) -> None:
    """Run the controller.

    It stays in the foreground and logs to standard error. SIGTERM or Ctrl-C stops it; nothing is lost by either, nor by SIGKILL.

    \b
    Example:
      litho serve
      litho serve --log-level debug
    """
    from litho_controller import daemon  # noqa: PLC0415 - `litho serve --help` does without the daemon's world

    settings = session.config
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    daemon.run(settings)
