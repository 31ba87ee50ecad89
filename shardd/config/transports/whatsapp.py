"""The transport `whatsapp`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from shardd.config.fields import Section, setting
from shardd.config.transports.definition import KINDS, TransportDefinition, region_option
from shardd.config.values import Bytes, Flag, Seconds, SecondsOrNever, Whole
from shardd.config.values.network import MediaHosts, ProxyUrl
from shardd.config.values.places import Region
from shardd.config.values.words import FilePath, Pooler


class WhatsappConfig(Section, reload="shard"):
    """Devices that are paired with WhatsApp, through neonize."""

    default_region: Region | None = region_option()
    media_dir: Annotated[Path | None, FilePath()] = setting(
        None, "Folder below which jobs may name files to send; null: none, only URLs and data: URIs."
    )
    media_hosts: MediaHosts | None = setting(
        None,
        "Hosts outside the internet from which media may be fetched, with commas between them: a name (media.internal), an "
        "address (10.20.0.5, ::1), a network (10.20.0.0/16), each also with its only port (127.0.0.1:9000, [::1]:9000). "
        "Whoever inserts jobs can have anything sent that these hosts answer. null: none; jobs name what is in the "
        "internet.",
    )
    media_max_bytes: Annotated[int, Bytes("1KiB", "2GiB")] = setting(
        "16MiB", "Largest media file; a bigger one fails its job. Each is held in memory while it is sent."
    )
    media_memory: Annotated[int, Bytes("1MiB", "64GiB")] = setting(
        "64MiB",
        "Media files that a worker holds at once, in bytes of the files; others wait, the oldest first. While they are "
        "uploaded the WhatsApp library takes several times as much besides. A file that is larger is sent alone.",
    )
    fetch_timeout: Annotated[float, Seconds("1s", "10m")] = setting(
        "20s", "How long fetching a media file may take. Longer for large files from slow servers."
    )
    link_preview: Annotated[bool, Flag()] = setting(
        "false",
        "true: below a text with a link its recipient sees title, description and picture of the page. The worker fetches a "
        "page once an hour, under the rules of media, and a text waits up to 15 seconds for it. A job chooses for itself "
        "with details.link_preview.",
    )
    connect_timeout: Annotated[float, Seconds("1s", "10m")] = setting(
        "20s", "How long dialling and login may take. Longer behind slow proxies."
    )
    upload_timeout: Annotated[float, Seconds("1s", "30m")] = setting(
        "45s", "How long uploading a media file to WhatsApp may take. Longer on a slow line."
    )
    answer_timeout: Annotated[float, Seconds("1s", "10m")] = setting(
        "30s", "How long WhatsApp may take to confirm a message before it is in doubt."
    )
    probe_after: Annotated[float, Seconds("1s", "1h")] = setting(
        "20s", "A client that heard nothing from the server for this long is probed before it sends."
    )
    probe_timeout: Annotated[float, Seconds("100ms", "1m")] = setting(
        "3s", "A client that does not answer a probe in this time is rebuilt. Longer on a slow line."
    )
    idle_close: Annotated[float, Seconds("1s", "1d")] = setting(
        "60s", "A client without work for this long is closed. Longer: fewer logins, more memory and connections."
    )
    visit_every: Annotated[float, SecondsOrNever("1s", "10d")] = setting(
        "6h",
        "A device that was not online for this long, because it had nothing to send, is opened for a moment: it receives what "
        "was sent to it (a STOP waits no longer than this), and WhatsApp, which unlinks a device that it deems inactive for "
        "about two weeks, sees it. With 3000 devices, 6h is a login every six seconds; shorter if replies must be heard "
        "sooner, never to do without.",
    )
    linger: Annotated[float, Seconds("0", "1d")] = setting(
        "5m",
        "How long after its last message a client stays open while that is not delivered: if the recipient's phone cannot "
        "decrypt it, only the client that sent it can encrypt it again. Longer: fewer messages are sent again as new "
        "ones, more memory and connections. 0: no longer than idle_close.",
    )
    max_open_clients: Annotated[int | None, Whole(1, 100_000)] = setting(
        None,
        "Open clients per worker. null: as many as half of the memory of the host, half of worker.recycle.rss, most of "
        "worker.go_memory_limit, the file descriptors and the threads of the service have room for; each takes about "
        "0.35 MiB, 3 file descriptors and a thread. When there is no room, those whose devices send again last are closed first.",
    )
    max_connecting: Annotated[int, Whole(1, 1000)] = setting(
        "32",
        "Concurrent logins per worker, at most, besides those that hang for seconds. How many they are follows from how fast the "
        "worker is with each, and is halved while WhatsApp does not answer most of them; so a restart is no storm.",
    )
    restricted_for: Annotated[float, Seconds("1s", "30d")] = setting(
        "6h",
        "How long a device that WhatsApp keeps from writing to new contacts waits before it tries again, unless WhatsApp "
        "reports when that ends.",
    )
    proxy: ProxyUrl | None = setting(
        None, "Proxy of devices that name none of their own: http://user:${NAME}@host:port or socks5://… null: none."
    )
    pooler: Pooler = setting(
        "auto",
        "Whether shardd runs a PgBouncer of its own when devices need more connections than PostgreSQL has: auto (if the program "
        "is installed), its path, or off. Without it, fewer clients are open at once, and other devices wait.",
        reload="restart",
    )
    pgbouncer: Annotated[bool, Flag()] = setting(
        "false",
        "true if database.sessions_dsn leads through a PgBouncer in transaction mode that you run yourself; shardd then runs "
        "none.",
    )


WHATSAPP: Final = TransportDefinition(
    name="whatsapp",
    summary="Devices that are paired with WhatsApp.",
    implementation="shardd.transports.whatsapp.transport:WhatsappTransport",
    config=WhatsappConfig,
    kinds=tuple(kind for kind in KINDS if kind != "template"),
    has_sessions=True,
)
