"""The checks of `devbox-secrets check`."""
