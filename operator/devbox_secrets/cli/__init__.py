"""The command line: registers the commands of each family, in the order of the help.

To add a family, write a module with `commands = Commands()` in `commands/` and name it below. Import what a command
needs beyond its options inside the command, so that each one starts at once.
"""

from devbox_secrets.cli.commands import check, import_, keys, manage, reseal, seal, status, token, usage
from devbox_secrets.cli.kit.app import Commands, Exit, app

__all__ = ["Commands", "Exit", "app"]

for _family in (seal, import_, manage, status, usage, reseal, token, keys, check):
    app.add_typer(_family.commands)
