"""The config file `shards.yaml`: read, checked, and handed on as a frozen model.

Durations are seconds (float), sizes are bytes (int). Every issue of a file is told at once, each with its line and its mend.
"""

from shardd.config.changes import diff_config
from shardd.config.events import EventsConfig, WebhookConfig
from shardd.config.load import load_config, parse_config
from shardd.config.model import Config
from shardd.config.pacing import ClassesConfig, ClassPaceConfig, PacingConfig
from shardd.config.sample import sample_config
from shardd.config.sections import RecycleConfig, SupervisorConfig
from shardd.config.transports import TRANSPORTS, TransportsConfig
from shardd.config.transports.cloud_api import CloudWebhookConfig
from shardd.config.transports.whatsapp import WhatsappConfig

__all__ = [
    "TRANSPORTS",
    "ClassPaceConfig",
    "ClassesConfig",
    "CloudWebhookConfig",
    "Config",
    "EventsConfig",
    "PacingConfig",
    "RecycleConfig",
    "SupervisorConfig",
    "TransportsConfig",
    "WebhookConfig",
    "WhatsappConfig",
    "diff_config",
    "load_config",
    "parse_config",
    "sample_config",
]
