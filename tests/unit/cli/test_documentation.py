"""docs/cli.md tells of every command, option, exit code and JSON field that there is."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import click
import pytest

from blobsync.cli import failures, json_events
from blobsync.cli.program import COMMANDS, program
from blobsync.errors import ExitCode

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()


def section(title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match.group(1)


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(program)
    for name in COMMANDS:
        command = program.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", one) for sub, one in command.commands.items()]
        else:
            found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), commands())
def test_commands_and_options(name: str, command: click.Command) -> None:
    match = re.search(
        rf"^### `{re.escape(name)}\b[^\n]*\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert match is not None, name
    text = match.group(0)
    shared = section("Options of every command")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            option = parameter.opts[0]
            assert f"`{option}" in text or f"`{option}" in shared, f"{name} {option}"


def test_exit_codes() -> None:
    documented = {int(row[0]): row[1] for row in rows(section("Exit codes"))}
    codes = {int(code): code.name.lower() for code in ExitCode}
    codes |= {failures.TERMINATED_EXIT_CODE: "interrupted"}
    codes |= {failures.STDOUT_CLOSED_EXIT_CODE: "-"}
    codes[0] = codes[2] = "-"
    assert documented == {
        code: name if name == "-" else f"`{name}`" for code, name in codes.items()
    }


def test_json_objects() -> None:
    documented: dict[str, set[str]] = {}
    for row in rows(section("JSON")):
        documented[row[0].strip("`")] = set(re.findall(r"`([a-z_]+)`", row[1]))
    declared: dict[str, set[str]] = {}
    for kind in typing.get_args(json_events.JsonEvent):
        hints = typing.get_type_hints(kind)
        name = typing.get_args(hints.pop("event"))[0]
        declared[name] = set(hints)
    assert documented == declared
