"""Installs shardd on a fresh Debian by its install page, with systemd as PID 1, and checks the service: ./scripts/boot --help."""
