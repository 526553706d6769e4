"""The command line: a module for each family of commands, put together here. Imports its own modules alone.

Who adds a family writes a module with `commands = Commands()` and names it below; their order is that of the help.
What a command needs beyond its options is imported when it is called, so that each starts at once.
"""

from devbox_secrets.cli import apikey, check, importing, keys, manage, reseal, seal, status, usage
from devbox_secrets.cli.program import Commands, Exit, app

__all__ = ["Commands", "Exit", "app"]

for _family in (seal, importing, manage, status, usage, reseal, apikey, keys, check):
    app.add_typer(_family.commands)
