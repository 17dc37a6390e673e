"""What the config says about the clients a daemon, or a command, opens."""

from __future__ import annotations

import os
from pathlib import Path

from daemon.config import Config
from jobs.clients import Wanted


def wanted(config: Config) -> Wanted:
    folder = config.daemon.state_dir / "storage"
    channels = (config.webhook, config.email, config.dns, config.push, config.sms)
    return Wanted(*channels, config.storage, folder, config.monitor)


def secret_folders(config: Config) -> tuple[Path, ...]:
    """Where secret://NAME is looked for: systemd's credentials, then daemon.secrets_dir."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    named = (Path(credentials) if credentials else None, config.daemon.secrets_dir)
    return tuple(folder for folder in named if folder is not None)
