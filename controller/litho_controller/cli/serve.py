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
@click.option(
    "--take-over", is_flag=True, help="Take the library from another controller, which ends when it sees that."
)
@pass_session
def serve(session: Session, log_level: str, take_over: bool) -> None:
    """Run the controller.

    It stays in the foreground and logs to standard error. SIGTERM or Ctrl-C stops it; nothing is lost by either, nor by SIGKILL.

    One controller works with a library. Where another one seems to, this one says which and does not start; one on another host
    that gives no sign of life for 45 s is taken for dead.

    \b
    Example:
      litho serve
      litho serve --log-level debug
    """
    from litho_controller import daemon  # noqa: PLC0415 - `litho serve --help` does without the daemon's world

    settings = session.config
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    daemon.run(settings, take_over=take_over)
