"""Names in Kubernetes: the group, objects, labels, annotations, field managers and REST paths."""

GROUP = "devbox-secrets.dev"
VERSION = "v1beta1"
KIND = "AccountSecret"
PLURAL = "accountsecrets"

#: Names a namespace's account; a namespace without it is its own. On an account Secret, whose values it holds.
ACCOUNT_LABEL = f"{GROUP}/account"
#: What a pod asks for: no secrets at all, some variables or other names, and files.
INJECT_ANNOTATION = f"{GROUP}/inject"
ENV_ANNOTATION = f"{GROUP}/env"
MOUNT_ANNOTATION = f"{GROUP}/mount"
#: Where devboxes have files, unless the annotation says otherwise.
FILES_PATH = f"/var/run/secrets/{GROUP}"
#: The one native Secret of a member namespace.
ACCOUNT_SECRET = "devbox-account-secrets"  # noqa: S105 - a name
SECRET_TYPE = "Opaque"  # noqa: S105 - a type, which can't be changed
#: Who writes, in server-side apply's managedFields and in the label of what we own.
FIELD_MANAGER = "devbox-secrets"
#: Who creates our Secrets, still empty: another manager's apply takes away what it doesn't name.
CREATE_FIELD_MANAGER = f"{FIELD_MANAGER}-create"
#: Who writes through the gateway, and through the command line.
GATEWAY_FIELD_MANAGER = f"{FIELD_MANAGER}-gateway"
CLI_FIELD_MANAGER = f"{FIELD_MANAGER}-cli"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
#: In the operator's namespace. The operator creates it; no manifest has it, so that no tool replaces or deletes it.
KEYS_SECRET = "devbox-secrets-keys"  # noqa: S105 - a name
#: The chart creates it empty in the operator's namespace; the operator only fills it.
PUBLIC_KEYS_CONFIGMAP = "devbox-secrets-public-keys"
#: Public keys in that ConfigMap. It holds 1 MiB, 600 keys of 1.7 kB; and whoever seals reads all of it.
PUBLIC_KEYS_MAX = 100
#: On the keys' Secret, an RFC 3339 time: the newest key must not be older than that.
ROTATE_ANNOTATION = f"{GROUP}/rotate"
#: On the keys' Secret, the ids of the keys that `keys prune` removed: what is gone otherwise may be written back.
PRUNED_ANNOTATION = f"{GROUP}/pruned"
LEASE = "devbox-secrets"
#: What the gateway records on an AccountSecret: when it created it and last gave it a value, in milliseconds since
#: 1970, and the marks of the requests that did, by which a retry is known.
GATEWAY_CREATED_ANNOTATION = f"gateway.{GROUP}/created-ms"
GATEWAY_UPDATED_ANNOTATION = f"gateway.{GROUP}/updated-ms"
GATEWAY_REQUESTS_ANNOTATION = f"gateway.{GROUP}/requests"
#: The operator's namespace, unless it was installed elsewhere.
OPERATOR_NAMESPACE = "devbox-secrets"

NAMESPACES_PATH = "/api/v1/namespaces"
SECRETS_PATH = "/api/v1/secrets"
ALL_ACCOUNT_SECRETS_PATH = f"/apis/{GROUP}/{VERSION}/{PLURAL}"


def account_secrets_path(account: str, name: str = "") -> str:
    """Give the API server's path of an account's AccountSecrets, or of one of them."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{account}/{PLURAL}" + (f"/{name}" if name else "")
