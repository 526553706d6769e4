"""The command line: registers the commands of each family, in the order of the help.

To add a family, write a module with `commands = Commands()` in `commands/` and name it below. Import what a command
needs beyond its options inside the command, so that each one starts at once.
"""

from devbox_secrets.cli.commands import about, apikey, check, import_, keys, manage, reseal, seal, status, usage
from devbox_secrets.cli.kit.app import Commands, Exit, app

__all__ = ["Commands", "Exit", "app"]

for _family in (seal, import_, manage, status, usage, check, keys, reseal, apikey, about):
    app.add_typer(_family.commands, rich_help_panel=_family.commands.section)
