"""What the config says about the clients a daemon, or a command, opens."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from daemon.config import Config
from daemon.exits import CONFIG, Exit
from jobs.clients import Wanted


def wanted(config: Config) -> Wanted:
    """Exit where a file of certificates cannot be used: the system's own error names neither file nor key."""
    for key, file in (("webhook.ca_file", config.webhook.ca_file), ("monitor.ca_file", config.monitor.ca_file)):
        try:
            if file is not None:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except OSError as error:  # ssl.SSLError too
            raise Exit(CONFIG, f"{key}: {file} is no PEM file of certificates that can be read: {error}") from error
    folder = config.daemon.state_dir / "storage"
    channels = (config.webhook, config.email, config.dns, config.push, config.sms)
    return Wanted(*channels, config.storage, folder, config.monitor)


def secret_folders(config: Config) -> tuple[Path, ...]:
    """Where secret://NAME is looked for: systemd's credentials, then daemon.secrets_dir."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    named = (Path(credentials) if credentials else None, config.daemon.secrets_dir)
    return tuple(folder for folder in named if folder is not None)
