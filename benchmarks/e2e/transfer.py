"""One transfer on this machine: a provider that adds and serves, a getter that fetches."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.data import check_equal
from benchmarks.harness import Process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures


@dataclass(frozen=True, slots=True)
class End:
    """Where one of the two programs runs."""

    ip: str = "127.0.0.1"
    prefix: Sequence[str] = ()
    """What is put before its command, to run it on another host of this machine."""

    def command(self, command: Sequence[str]) -> list[str]:
        """The command as it is started."""
        return [*self.prefix, *command]


HERE = End()


class Transfer(ABC):
    """A pair of programs that send a file or folder by ticket.

    The measures of one run:

    - `add_wall_s`, `add_cpu_s`: from the start of the provider until it prints its ticket;
    - `receive_wall_s`: from the start of the getter to its end;
    - `receive_cpu_s`: the getter's, and the provider's since its ticket;
    - `cpu_s`: of both, from beginning to end;
    - `provider_memory`, `getter_memory`: peaks in bytes, and their parts.

    With several getters they run at once: `receive_wall_s` is from the start of the first to the
    end of the last, CPU is of all, and the memory is the largest getter's.
    """

    name: str
    version: str

    def __init__(
        self, sent: Path, *, getters: int = 1, provider: End = HERE, getter: End = HERE
    ) -> None:
        self.sent = sent
        self.getters = getters
        self.provider, self.getter = provider, getter
        self.commands: Sequence[Sequence[str]] = ()

    @abstractmethod
    def provide_command(self, folder: Path) -> list[str]: ...

    @abstractmethod
    def get_command(self, folder: Path, ticket: str) -> list[str]: ...

    @abstractmethod
    def parse_ticket(self, line: str) -> str | None:
        """The ticket, if this line of the provider's output holds it."""

    def environment(self, folder: Path) -> dict[str, str]:
        """The environment of the program that runs in `folder`."""
        env = dict(os.environ, HOME=str(folder))
        env.pop("RUST_LOG", None)
        return env

    def run(self, folder: Path) -> Measures:
        """One transfer; see the class."""
        provider_folder = folder / "provider"
        getter_folders = [folder / f"getter-{number}" for number in range(1, self.getters + 1)]
        for path in (provider_folder, *getter_folders):
            path.mkdir()
        command = self.provider.command(self.provide_command(provider_folder))
        provider_env = self.environment(provider_folder)
        with Process(command, cwd=provider_folder, env=provider_env) as provider:
            ticket = provider.line_where(self.parse_ticket)
            add_wall_s = provider.seconds_so_far()
            add_cpu_s = provider.cpu_so_far_s()
            with contextlib.ExitStack() as running:
                begin_s = time.perf_counter()
                started = [
                    running.enter_context(
                        Process(
                            self.getter.command(self.get_command(path, ticket)),
                            cwd=path,
                            env=self.environment(path),
                        )
                    )
                    for path in getter_folders
                ]
                used = [getter.wait() for getter in started]
                receive_wall_s = time.perf_counter() - begin_s
            provided = provider.end()
        for path in getter_folders:
            check_equal(self.sent, path / self.sent.name)
        shown = self.getter.command(self.get_command(getter_folders[0], "TICKET"))
        self.commands = [command, shown]
        getters_cpu_s = sum(each.cpu_s for each in used)
        largest = max(used, key=lambda each: each.memory_peak)
        return {
            "add_wall_s": add_wall_s,
            "add_cpu_s": add_cpu_s,
            "receive_wall_s": receive_wall_s,
            "receive_cpu_s": getters_cpu_s + provided.cpu_s - add_cpu_s,
            "cpu_s": getters_cpu_s + provided.cpu_s,
            **provided.memory_measures("provider"),
            **largest.memory_measures("getter"),
        }
