"""What a worker is told when it gets its shard."""

from __future__ import annotations

from shardd import ipc
from shardd.config import TRANSPORTS, Config
from shardd.journal import journal_path


def worker_setup(
    config: Config,
    shard: int,
    *,
    state_id: str,
    devices: list[ipc.DeviceSpec],
    sessions_dsn: str | None,
    store_access: ipc.StoreAccess,
    careful: bool,
) -> ipc.Setup:
    """By this config. `state_id`: of the state folder; `careful`: the shard's last workers died."""
    transports = config.transports
    return ipc.Setup(
        node=config.node,
        shard=shard,
        journal=str(journal_path(config.state_dir, shard)),
        state_id=state_id,
        send_timeout=config.queue.send_timeout,
        transports={
            name: ipc.TransportSpec(TRANSPORTS[name].implementation, settings, transports.in_flight_of(name))
            for name, settings in transports.as_plain().items()
        },
        devices=devices,
        heartbeat_every=config.supervisor.heartbeat_every,
        fsync=config.worker.journal_fsync,
        sessions_dsn=sessions_dsn,
        store_access=store_access,
        careful_for=config.supervisor.backoff.reset_after if careful else 0.0,
        opt_out_words=list(config.opt_outs.words or ()),
        take_back_words=list(config.opt_outs.take_back_words or ()),
        inbox=list(config.inbox.include or ()) if config.inbox.keep else None,
        inbox_media=config.inbox.downloads,
    )
