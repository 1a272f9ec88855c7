"""`litho config ...`: are the settings right, and which ones hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from litho_controller import config as settings
from litho_controller.cli.session import Session, json_option, pass_session, print_json


@click.group()
def config() -> None:
    """Check or show the settings.

    \b
    Example:
      litho config check /etc/lithograph/lithograph.toml
      litho config show
    """


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@pass_session
def check(session: Session, file: Path | None) -> None:
    """Check a settings file and the environment over it. Ends with 2 and a sentence when something is wrong.

    \b
    Example:
      litho config check lithograph.toml
    """
    checked, _ = settings.which(file or session.file, os.environ)
    settings.load(file or session.file)
    missing = "" if checked.exists() else " (there is no such file: the defaults and the environment hold)"
    click.echo(f"{checked}: good{missing}")


@config.command()
@json_option
@pass_session
def show(session: Session, as_json: bool) -> None:
    """Show the settings that hold here: defaults, file and environment together. A password is blotted out.

    \b
    Example:
      litho config show
    """
    values = settings.plain(session.config)
    if as_json:
        print_json(values)
    else:
        click.echo(toml(values), nl=False)


def toml(values: dict[str, Any]) -> str:
    """Settings as the file that would set them. Pure."""
    lines = [f"{name} = {_value(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines.append(f"\n[{name}]")
            lines.extend(f"{key} = {_value(value)}" for key, value in section.items())
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(name)} = {_value(one)}" for name, one in value.items()) + "}"
    # JSON's words for texts, numbers and booleans are TOML's too; but TOML wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
