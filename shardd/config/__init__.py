"""The config file `shards.yaml`: read, checked, and handed on as a frozen model.

Durations are seconds (float), sizes are bytes (int). Every issue of a file is told at once, each with its line and its mend.
"""

from shardd.config.changes import Change, diff_config
from shardd.config.events import EventsConfig, WebhookConfig
from shardd.config.fields import Reload
from shardd.config.load import load_config, parse_config
from shardd.config.model import Config
from shardd.config.pacing import ClassesConfig, ClassPaceConfig, PacingConfig
from shardd.config.platforms import CloudApiConfig, CloudWebhookConfig, WablasConfig, WhacenterConfig
from shardd.config.retention import RetentionConfig
from shardd.config.sample import sample_config
from shardd.config.sections import (
    BackoffConfig,
    BreakerConfig,
    ControlConfig,
    DatabaseConfig,
    LeaseConfig,
    LogConfig,
    QueueConfig,
    RecycleConfig,
    RestartBackoffConfig,
    SupervisorConfig,
    WorkerConfig,
)
from shardd.config.transports import SandboxConfig, TransportsConfig, WhatsappConfig

__all__ = [
    "BackoffConfig",
    "BreakerConfig",
    "Change",
    "ClassPaceConfig",
    "ClassesConfig",
    "CloudApiConfig",
    "CloudWebhookConfig",
    "Config",
    "ControlConfig",
    "DatabaseConfig",
    "EventsConfig",
    "LeaseConfig",
    "LogConfig",
    "PacingConfig",
    "QueueConfig",
    "RecycleConfig",
    "Reload",
    "RestartBackoffConfig",
    "RetentionConfig",
    "SandboxConfig",
    "SupervisorConfig",
    "TransportsConfig",
    "WablasConfig",
    "WebhookConfig",
    "WhacenterConfig",
    "WhatsappConfig",
    "WorkerConfig",
    "diff_config",
    "load_config",
    "parse_config",
    "sample_config",
]
