"""The program as a whole: usage, failures, what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blobsync.cli import main
from blobsync.cli.program import COMMANDS, program
from blobsync.errors import ExitCode, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

HEAVY = ("blobstore", "pyiroh", "lmdb", "rich", "nacl", "pybao", "blobsync.app")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["gett"], "blobsync: no such command 'gett'"),
        (["get"], "blobsync get: missing argument 'TICKET'"),
        (["share"], "blobsync share: missing argument 'PATH...'"),
        (["get", "x", "--overwrite", "maybe"], "blobsync get: invalid value for '--overwrite'"),
        (["get", "--no-such"], "blobsync get: no such option '--no-such'"),
        (["get", "a", "b", "c"], "blobsync get: got unexpected extra argument (c)"),
        (["tags", "set", "x"], "blobsync tags set: missing argument 'HASH'"),
        (["--wrong", "id"], "blobsync: no such option '--wrong'"),
        (["get", "\x1b[2J", "b", "\x1b[2J"], "blobsync get: got unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    run: Callable[..., Any], args: list[str], line: str
) -> None:
    result = run(*args)
    assert result.code == ExitCode.USAGE
    assert result.out == ""
    assert result.err.startswith(line)
    assert result.err.endswith(" --help)\n")
    assert result.err[:-1].isprintable()


def test_without_arguments_the_help_is_shown(run: Callable[..., Any]) -> None:
    result = run()
    assert result.code == ExitCode.USAGE
    assert "Commands:" in result.err


def test_every_command_has_help(run: Callable[..., Any]) -> None:
    overview = run("--help").out
    for name in COMMANDS:
        assert f"\n  {name} " in overview
        result = run(name, "--help")
        assert result.code == ExitCode.OK
        assert result.out.startswith(f"Usage: blobsync {name}")
        assert "--home DIR" in result.out
        assert "--debug" in result.out


def test_a_failure_is_one_escaped_line(run: Callable[..., Any], ticket: str) -> None:
    result = run("get", ticket, script=[UnreachableError("no way to \x1b[31mpeer\nat all")])
    assert result.code == ExitCode.UNREACHABLE
    assert result.out == ""
    assert result.err == "blobsync: no way to \\x1b[31mpeer\\x0aat all\n"


def test_a_failure_as_json(
    run: Callable[..., Any], ticket: str, check_event: Callable[[Any], None]
) -> None:
    result = run("get", ticket, "--json", script=[UnreachableError("no way\n")])
    assert result.code == ExitCode.UNREACHABLE
    assert result.err == ""
    (event,) = result.events
    check_event(event)
    assert event == {
        "event": "error",
        "kind": "unreachable",
        "message": "no way\n",
        "exit_code": 4,
        "retry": True,
    }


def test_what_nobody_foresaw(run: Callable[..., Any], ticket: str) -> None:
    result = run("get", ticket, script=[RuntimeError("oops")])
    assert result.code == ExitCode.FAILURE
    assert result.err == (
        "blobsync: unexpected: RuntimeError: oops (--debug shows where it comes from)\n"
    )


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_stack_trace(run: Callable[..., Any], ticket: str, place: str) -> None:
    args = ["--debug", "get", ticket] if place == "before" else ["get", ticket, "--debug"]
    result = run(*args, script=[RuntimeError("oops\x1b")])
    assert result.code == ExitCode.FAILURE
    assert "Traceback (most recent call last):\n" in result.err
    assert "in _play\n" in result.err
    assert "\x1b" not in result.err
    assert result.err.splitlines()[-1].startswith("blobsync: unexpected: RuntimeError: oops\\x1b")


@pytest.mark.parametrize("place", ["before", "after"])
def test_home(
    run: Callable[..., Any], fake_app: Callable[..., Any], ticket: str, place: str
) -> None:
    app = fake_app()
    args = ["--home", "h", "get", ticket] if place == "before" else ["get", ticket, "--home", "h"]
    run(*args, app=app)
    assert app.calls[0][1][0] == Path("h")


def test_home_is_left_to_the_application_by_default(
    run: Callable[..., Any], fake_app: Callable[..., Any], ticket: str
) -> None:
    app = fake_app()
    run("get", ticket, app=app)
    assert app.calls[0][1][0] is None


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (["version"], (*HEAVY, "asyncio")),
        (["--help"], HEAVY),
        (["get", "--help"], HEAVY),
    ],
)
def test_what_asks_nothing_of_the_store_imports_nothing_heavy(
    args: list[str], heavy: tuple[str, ...]
) -> None:
    # In a process of its own: this one has imported all of it.
    code = (
        f"import sys; from blobsync.cli import main; code = main({args!r}); "
        f"print([name for name in {heavy!r} if name in sys.modules], int(code))"
    )
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[] 0"


def test_a_reader_that_went_away_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-m", "blobsync", "version"],
        cwd=root,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert result.stderr == ""
    assert result.returncode == 141


def test_version(run: Callable[..., Any], check_event: Callable[[Any], None]) -> None:
    assert run("version").out.startswith("blobsync ")
    (event,) = run("version", "--json").events
    check_event(event)


def test_ctrl_c_before_the_command_runs(
    run: Callable[..., Any], ticket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "invoke", interrupted)
    result = run("get", ticket)
    assert result.code == ExitCode.INTERRUPTED
    assert result.err.strip() == ""


def test_the_installed_program_is_this_function() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'blobsync = "{main.__module__.removesuffix(".program")}:main"' in project
