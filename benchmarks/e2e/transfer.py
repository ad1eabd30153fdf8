"""One transfer on this machine: a provider that adds and serves, a getter that fetches."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from benchmarks.data import check_equal
from benchmarks.harness import Process, run_to_end

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures


class Transfer(ABC):
    """A pair of programs that send a file or folder by ticket.

    The measures of one run:

    - `add_wall_s`, `add_cpu_s`: from the start of the provider until it prints its ticket;
    - `receive_wall_s`: from the start of the getter to its end;
    - `receive_cpu_s`: the getter's, and the provider's since its ticket;
    - `cpu_s`: of both, from beginning to end;
    - `provider_memory`, `getter_memory`: peaks in bytes.
    """

    name: str
    version: str

    def __init__(self, sent: Path) -> None:
        self.sent = sent
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
        provider_folder, getter_folder = folder / "provider", folder / "getter"
        for path in (provider_folder, getter_folder):
            path.mkdir()
        command = self.provide_command(provider_folder)
        provider_env = self.environment(provider_folder)
        with Process(command, cwd=provider_folder, env=provider_env) as provider:
            ticket = provider.line_where(self.parse_ticket)
            add_wall_s = provider.seconds_so_far()
            add_cpu_s = provider.cpu_so_far_s()
            get_command = self.get_command(getter_folder, ticket)
            getter = run_to_end(get_command, cwd=getter_folder, env=self.environment(getter_folder))
            provided = provider.end()
        check_equal(self.sent, getter_folder / self.sent.name)
        self.commands = [command, [part.replace(ticket, "TICKET") for part in get_command]]
        return {
            "add_wall_s": add_wall_s,
            "add_cpu_s": add_cpu_s,
            "receive_wall_s": getter.wall_s,
            "receive_cpu_s": getter.cpu_s + provided.cpu_s - add_cpu_s,
            "cpu_s": getter.cpu_s + provided.cpu_s,
            "provider_memory": provided.memory_peak,
            "getter_memory": getter.memory_peak,
        }
