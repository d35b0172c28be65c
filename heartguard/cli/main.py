"""The ``heartguard`` command. A subcommand's module is imported when it is called, so that each starts fast."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = {
    "up": "stack:up",
    "down": "stack:down",
    "status": "stack:status",
    "logs": "logs:logs",
    "run": "stack:run",
    "migrate": "stack:migrate",
    "keys": "keys:keys",
    "audit": "audit:audit",
    "demo": "demo:demo",
    "validate": "validate.command:validate",
    "timeseries": "timeseries:timeseries",
    "bench": "bench:bench",
    "publish": "publish:publish",
}
"""Where each subcommand is: a module of this package, and in it the function, or the group of further ones."""


class LazyGroup(TyperGroup):
    """Finds the subcommands of :data:`COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f".{module}", __package__), function)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        one.command(cmd_name)(found)
        return typer.main.get_command(one)


app = typer.Typer(
    cls=LazyGroup,
    name="heartguard",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def heartguard() -> None:
    """Run and operate HeartGuard: the stack on this machine, its database, its published schemas."""


def main() -> None:
    """Entry point of the ``heartguard`` command."""
    app(prog_name="heartguard")


if __name__ == "__main__":
    main()
