"""The CLI: registers the commands of each family, in the order that the help lists them.

To add a family, write a module with `commands = Commands()` in `commands/` and add it below. Put imports that only
the command's body needs inside the command, so that every command starts quickly.
"""

from devbox_secrets.cli.commands import about, apikey, check, import_, keys, manage, reseal, seal, status, usage
from devbox_secrets.cli.kit.app import Commands, Exit, app

__all__ = ["Commands", "Exit", "app"]

for _family in (seal, import_, manage, status, usage, check, keys, reseal, apikey, about):
    app.add_typer(_family.commands, rich_help_panel=_family.commands.section)
