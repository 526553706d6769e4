"""Mutants of the operator, each without one check: the simulation must fail with each."""

from collections.abc import Iterable, Mapping

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.writes import Writer
from devbox_secrets.kube.client import Body
from unit.controller.simulation.simulation import Parts


class _KeepsUnlisted(Cache):
    def replace_account_secrets(self, items: Iterable[AccountSecret], version: int) -> set[str]:
        listed = list(items)
        found = {(item.namespace, item.name) for item in listed}
        kept = [item for item in self.all_account_secrets() if (item.namespace, item.name) not in found]
        return super().replace_account_secrets([*listed, *kept], version)


class _UsesFormerHome(Cache):
    def account_secrets(self, account: str) -> list[AccountSecret]:
        found = [item for item in self.all_account_secrets() if item.namespace == account]
        return found if self.namespace_uid(account) else []


class _UsesDeletedHome(Cache):
    def account_secrets(self, account: str) -> list[AccountSecret]:
        found = [item for item in self.all_account_secrets() if item.namespace == account]
        return super().account_secrets(account) if self.namespace_uid(account) else found


class _SkipsNamespaceCheck(Writer):
    async def has_namespace(self, *_: object) -> bool:
        return True


class _AppliesWithoutUid(Writer):
    async def apply_account_secret(
        self, namespace: str, account: str, values: Mapping[str, SecretBytes], _uid: str, resource_version: str
    ) -> Body:
        return await super().apply_account_secret(namespace, account, values, "", resource_version)


class _AppliesWithoutVersion(Writer):
    async def apply_account_secret(
        self, namespace: str, account: str, values: Mapping[str, SecretBytes], uid: str, _resource_version: str
    ) -> Body:
        return await super().apply_account_secret(namespace, account, values, uid, "")


MUTANTS = {
    "lost-deletion": Parts(cache=_KeepsUnlisted),
    "former-home": Parts(cache=_UsesFormerHome),
    "deleted-home": Parts(cache=_UsesDeletedHome),
    "recreated-namespace": Parts(writer=_SkipsNamespaceCheck),
    "deleted-secret": Parts(writer=_AppliesWithoutUid),
    "no-version": Parts(writer=_AppliesWithoutVersion),
}
"""By name."""
