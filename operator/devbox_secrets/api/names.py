"""Names in Kubernetes: the group, objects, labels, annotations, field managers and REST paths."""

GROUP = "devbox-secrets.dev"
VERSION = "v1beta1"
KIND = "AccountSecret"
PLURAL = "accountsecrets"

#: The account of a namespace; without it, the namespace is its own account. On an account Secret, the values' account.
ACCOUNT_LABEL = f"{GROUP}/account"
#: A pod's wishes: no secrets, only some variables (possibly renamed), or files.
INJECT_ANNOTATION = f"{GROUP}/inject"
ENV_ANNOTATION = f"{GROUP}/env"
MOUNT_ANNOTATION = f"{GROUP}/mount"
#: Where files are mounted, unless the annotation says otherwise.
FILES_PATH = f"/var/run/secrets/{GROUP}"
#: The one native Secret of a member namespace.
ACCOUNT_SECRET = "devbox-account-secrets"  # noqa: S105 - a name
SECRET_TYPE = "Opaque"  # noqa: S105 - a type, which can't be changed
#: Our field manager in server-side apply, and our name in the label of what we own.
FIELD_MANAGER = "devbox-secrets"
#: Creates our Secrets, still empty. A separate manager, since an apply removes fields that its manager doesn't set.
CREATE_FIELD_MANAGER = f"{FIELD_MANAGER}-create"
#: The field managers of the gateway and of the command line.
GATEWAY_FIELD_MANAGER = f"{FIELD_MANAGER}-gateway"
CLI_FIELD_MANAGER = f"{FIELD_MANAGER}-cli"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
#: In the operator's namespace. The operator creates it; it is in no manifest, so that no tool replaces or deletes it.
KEYS_SECRET = "devbox-secrets-keys"  # noqa: S105 - a name
#: The chart creates it empty in the operator's namespace; the operator only fills it.
PUBLIC_KEYS_CONFIGMAP = "devbox-secrets-public-keys"
#: Maximum number of keys in that ConfigMap. It can hold 1 MiB (600 keys of 1.7 kB), but sealing reads all of it.
PUBLIC_KEYS_MAX = 100
#: On the keys' Secret: an RFC 3339 time; the newest key must not be older than that.
ROTATE_ANNOTATION = f"{GROUP}/rotate"
#: On the keys' Secret: the ids of the keys that `keys prune` removed. Other missing keys may be written back.
PRUNED_ANNOTATION = f"{GROUP}/pruned"
LEASE = "devbox-secrets"
#: The gateway's annotations on an AccountSecret: when it created the object and last set its value, in milliseconds
#: since 1970, and the idempotency keys of the requests, which identify retries.
GATEWAY_CREATED_ANNOTATION = f"gateway.{GROUP}/created-ms"
GATEWAY_UPDATED_ANNOTATION = f"gateway.{GROUP}/updated-ms"
GATEWAY_REQUESTS_ANNOTATION = f"gateway.{GROUP}/requests"
#: The operator's namespace, unless it was installed elsewhere.
OPERATOR_NAMESPACE = "devbox-secrets"

NAMESPACES_PATH = "/api/v1/namespaces"
SECRETS_PATH = "/api/v1/secrets"
ALL_ACCOUNT_SECRETS_PATH = f"/apis/{GROUP}/{VERSION}/{PLURAL}"


def account_secrets_path(account: str, name: str = "") -> str:
    """Return the API path of an account's AccountSecrets, or of one of them."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{account}/{PLURAL}" + (f"/{name}" if name else "")
