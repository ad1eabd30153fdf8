"""The benchmarks measure real processes, in turn, and compare round by round."""

import contextlib
import os
import signal
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import (
    BenchmarkError,
    Measures,
    Process,
    medians,
    ratios,
    run_rounds,
    run_to_end,
)

SPIN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"

CHILD_SPINS = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN!r}], check=True)"
)

UNTIL_SIGNAL = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
print('first', flush=True)
print('ticket=xyz', flush=True)
signal.pause()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_cpu_time_of_a_process_and_of_its_children_is_counted(tmp_path: Path) -> None:
    own = run_to_end(python(SPIN), cwd=tmp_path, env=os.environ)
    of_child = run_to_end(python(CHILD_SPINS), cwd=tmp_path, env=os.environ)
    assert own.cpu_s >= 0.2
    assert of_child.cpu_s >= 0.2
    assert own.wall_s > 0


def test_the_peak_of_memory_is_the_process_that_was_largest(tmp_path: Path) -> None:
    size = 200 << 20
    code = f"data = b'x' * {size}\nassert len(data) == {size}"
    assert run_to_end(python(code), cwd=tmp_path, env=os.environ).memory_peak >= size


def test_a_program_that_serves_is_told_to_end(tmp_path: Path) -> None:
    with Process(python(UNTIL_SIGNAL), cwd=tmp_path, env=os.environ) as process:
        ticket = process.line_where(
            lambda line: line.partition("=")[2] if line.startswith("ticket=") else None
        )
        assert ticket == "xyz"
        assert process.cpu_so_far_s() >= 0
        assert process.end(signal.SIGINT).cpu_s > 0


def test_a_failure_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"status 3[^\0]*the reason"):
        run_to_end(
            python("import sys; print('the reason', file=sys.stderr); sys.exit(3)"),
            cwd=tmp_path,
            env=os.environ,
        )
    with (
        Process(python("print('other')"), cwd=tmp_path, env=os.environ) as process,
        pytest.raises(BenchmarkError, match="ended too early"),
    ):
        process.line_where(lambda line: line if line == "never" else None)


@dataclass
class Fake:
    """A contestant whose runs take what it was told."""

    name: str
    log: list[str]
    walls: list[float]
    version: str = "1"
    commands: Sequence[Sequence[str]] = field(default_factory=list[Sequence[str]])

    def run(self, folder: Path) -> Measures:
        assert list(folder.iterdir()) == []
        self.log.append(self.name)
        return {"receive_wall_s": self.walls.pop(0)}


def test_rounds_are_interleaved_and_compared_one_by_one(tmp_path: Path) -> None:
    log: list[str] = []
    contestants = [Fake("ours", log, [1.0, 10.0, 1.0]), Fake("rival", log, [2.0, 30.0, 8.0])]

    @contextlib.contextmanager
    def new_folder(name: str) -> Generator[Path]:
        path = tmp_path / name
        path.mkdir()
        yield path

    rounds = run_rounds(contestants, 3, new_folder, log.append)

    ran = [entry for entry in log if entry in ("ours", "rival")]
    assert ran == ["ours", "rival"] * 3
    assert medians(rounds, "ours") == {"receive_wall_s": 1.0}
    assert medians(rounds, "rival") == {"receive_wall_s": 8.0}
    # The median of 2, 3 and 8; not 8, the ratio of the medians.
    assert ratios(rounds, "ours", "rival") == {"receive_wall_s": 3.0}


@dataclass
class Unreliable(Fake):
    """One that the run can do without, and that fails the second time."""

    is_optional: bool = True

    def run(self, folder: Path) -> Measures:
        if not self.walls:
            raise BenchmarkError("it broke")
        return super().run(folder)


@contextlib.contextmanager
def made(path: Path) -> Generator[Path]:
    path.mkdir()
    yield path


def test_an_optional_one_that_fails_is_left_out(tmp_path: Path) -> None:
    log: list[str] = []
    contestants = [Fake("ours", log, [1.0, 1.0, 1.0]), Unreliable("rival", log, [2.0])]
    left_out: dict[str, str] = {}
    rounds = run_rounds(contestants, 3, lambda name: made(tmp_path / name), log.append, left_out)
    assert left_out == {"rival": "failed in round 2"}
    assert [sorted(each) for each in rounds] == [["ours", "rival"], ["ours"], ["ours"]]
    assert ratios(rounds, "ours", "rival") == {"receive_wall_s": 2.0}
    with pytest.raises(BenchmarkError, match="it broke"):
        run_rounds(
            [Unreliable("ours", log, [], is_optional=False)],
            1,
            lambda name: made(tmp_path / f"{name}-again"),
            log.append,
        )


def test_an_optional_one_that_is_slow_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "SLOW_S", -1.0)
    log: list[str] = []
    contestants = [Fake("ours", log, [1.0, 1.0]), Unreliable("rival", log, [2.0])]
    left_out: dict[str, str] = {}
    rounds = run_rounds(contestants, 2, lambda name: made(tmp_path / name), log.append, left_out)
    assert left_out == {"rival": "slow, left out after round 1"}
    assert medians(rounds, "rival") == {"receive_wall_s": 2.0}


def test_a_measure_that_some_rounds_lack_has_no_median() -> None:
    rounds: list[dict[str, Measures]] = [{"ours": {"a": 1.0, "b": 1.0}}, {"ours": {"a": 3.0}}]
    assert medians(rounds, "ours") == {"a": 2.0}


def test_what_a_program_prints_can_go_to_a_file(tmp_path: Path) -> None:
    output = tmp_path / "output"
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)))"
    run_to_end(python(code), cwd=tmp_path, env=os.environ, output=output)
    assert output.read_bytes() == bytes(range(256))


def test_waiting_for_a_program_that_has_ended_fails(tmp_path: Path) -> None:
    with (
        Process(python("pass"), cwd=tmp_path, env=os.environ) as process,
        pytest.raises(BenchmarkError, match="ended too early"),
    ):
        process.wait_until(lambda: False)
