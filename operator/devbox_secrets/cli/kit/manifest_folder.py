"""A folder of manifests: writes new manifests, and replaces the sealed values of existing ones."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbox_secrets.api.names import KIND
from devbox_secrets.cli.formats.text import decode
from devbox_secrets.cli.kit.files import create_file, replace_file
from devbox_secrets.cli.kit.output import as_manifest
from devbox_secrets.errors import InvalidText, NotOurs

if TYPE_CHECKING:
    from devbox_secrets.cli.formats.yaml_edit import Sealed

_SUFFIXES = {".yaml", ".yml", ".json"}


@dataclass(frozen=True)
class ManifestFolder:
    """The folder, as it was when it was first read."""

    path: Path
    account: str

    @cached_property
    def _files(self) -> dict[str, Path]:
        paths = sorted(self.path.iterdir()) if self.path.is_dir() else []
        return {
            sealed.variable: path
            for path in paths
            if path.suffix in _SUFFIXES and path.is_file()
            for sealed in self._find(path)
        }

    def file_of(self, variable: str) -> Path | None:
        """Return the file with the account's manifest of a variable, or None."""
        return self._files.get(variable)

    def new_file(self, name: str) -> Path:
        """Return the path for a new manifest.

        Raises:
            NotOurs: the file exists and holds something else.
        """
        path = self.path / f"{name}.yaml"
        if path.exists():
            raise NotOurs(f"{path} already exists and isn't the variable's manifest; move it, or use another folder")
        return path

    def write_new(self, path: Path, body: dict[str, Any]) -> None:
        """Write a new manifest.

        Raises:
            FileExistsError: the file was created in the meantime.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        create_file(path, as_manifest(body, "yaml").encode())

    def replace_sealed(self, path: Path, variable: str, sealed: str) -> None:
        """Replace the sealed value in a variable's manifest; the rest of the file is unchanged."""
        from devbox_secrets.cli.formats import yaml_edit

        raw = path.read_bytes()
        text = decode(raw)
        changes = {found.start: (found, sealed) for found in self._find(path) if found.variable == variable}
        replace_file(path, replace(text, text=yaml_edit.replaced(text.text, changes)).encode(), before=raw)

    def _find(self, path: Path) -> "list[Sealed]":
        from devbox_secrets.cli.formats import yaml_edit

        try:
            raw = path.read_bytes()
            found = yaml_edit.find(decode(raw).text) if KIND.encode() in raw else []
        except InvalidText:
            return []
        return [
            each
            for each in found
            if each.variable and not each.problem and (each.account or self.account) == self.account
        ]
