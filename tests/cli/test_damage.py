"""What was damaged behind the store's back is noticed, told, and can be mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_damaged_copy(program: Any, write: Any) -> None:
    write("good.bin", 70_000)
    write("bad.bin", 80_000)
    assert program.run("add", "good.bin", "bad.bin", "--copy").code == 0
    files = {event["name"]: event["hash"] for event in listing(program)}
    owned = list((program.cwd / "home" / "store").rglob(f"{files['bad.bin']}*"))
    (data,) = [path for path in owned if path.stat().st_size == 80_000]
    flip(data, 40_000)

    ended = program.run("verify")
    assert ended.code == 11
    damaged, summary = ended.out.decode().splitlines()
    assert damaged == f"damaged  {files['bad.bin']}  16.0 KiB"
    assert summary.endswith(" verified: 1 damaged")

    # It is no longer claimed, so there is nothing wrong left; adding it again mends it.
    ended = program.run("verify", "--json", "--quiet")
    assert ended.code == 0
    assert [event["event"] for event in ended.events] == ["verify_done"]
    assert program.run("cat", files["bad.bin"]).code == 6
    assert program.run("add", "bad.bin").code == 0
    assert program.run("cat", files["bad.bin"]).out == (program.cwd / "bad.bin").read_bytes()


def test_a_changed_file_that_is_referenced(program: Any, write: Any) -> None:
    path = write("file.bin", 70_000)
    assert program.run("add", "file.bin").code == 0
    (file,) = listing(program)
    flip(path, 5)

    ended = program.run("cat", file["hash"])
    assert ended.code == 6
    assert ended.out == b""
    assert len(ended.err.splitlines()) == 1
    ended = program.run("verify", "--json", file["hash"])
    assert ended.code == 11
    verified, summary = ended.events
    assert verified["hash"] == file["hash"]
    assert verified["bytes_damaged"] > 0
    assert summary["damaged"] == 1


def listing(program: Any) -> list[dict[str, Any]]:
    (tag,) = [event for event in program.run("ls", "--json").events if event["event"] == "tag"]
    return program.run("ls", tag["hash"], "--json").events
