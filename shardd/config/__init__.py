"""The config file `shards.yaml`: read, checked, and turned into a frozen model.

A file becomes plain data with line numbers (`source`), each value is read by the reader in its field's type (`values`), the
sections (`model` and what it imports) put them together, and `rules` checks the conditions between them. `load` runs these
steps and reports every error of a file at once, each with its line, its field, its value (never a secret) and a fix. The sample
file (`sample`) and the effect of a changed file (`changes`) derive from the same fields.

In Python durations are seconds (float) and sizes are bytes (int).
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
