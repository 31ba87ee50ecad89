"""What has to be known before a message is handed over: where it goes, and which devices can read it.

The library asks the same itself while it sends, and goes on without devices, with nothing in its log. Asked for earlier, in the
same words, the answers cost nothing: the library keeps them in the client (`user.go`, `GetUserDevices`) and in the session store.
All of these raise `shardd.errors.SendError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from neonize.exc import GetJIDFromStoreError, NeonizeError

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError, PermanentError, SendError, TransientError
from shardd.logs import get_logger
from shardd.persons import GROUP_SERVER, HIDDEN_SERVER, USER_SERVER, of_number, recipient_at
from shardd.transports.whatsapp.clients.client import Client, ClientFailedError
from shardd.transports.whatsapp.clients.library import JID, format_jid, parse_jid
from shardd.transports.whatsapp.messages.failures import SendContext, send_error, store_error

log = get_logger(__name__)

AFTER_TIMEOUT: Final = 5.0
"""Seconds for the questions after the message, which are answered from the client's memory unless something has changed."""

T = TypeVar("T")


async def find_readers(client: Client, jid: str, number: str | None, timeout: float) -> tuple[str, list[str] | None]:
    """The JID to write to, and the devices that can read it: None for a group, never empty.

    `number`: of the recipient, if known; WhatsApp may list the account under another one. `timeout`: seconds for each answer.
    """
    if jid.endswith(f"@{GROUP_SERVER}"):
        await hidden_id(client, own_number(client), timeout)
        return jid, None
    hidden = await hidden_id(client, jid, timeout)
    if hidden is None and number is not None:
        jid = await find_account(client, number, timeout)
        hidden = await hidden_id(client, jid, timeout)
    if hidden is None:
        raise TransientError(f"WhatsApp does not say how to address {number or jid}", error_class=ErrorClass.RECIPIENT)
    if not (readers := await readers_of(client, hidden, timeout)):
        text = f"WhatsApp lists no device of {number or jid} that could read a message"
        raise TransientError(text, error_class=ErrorClass.RECIPIENT)
    return jid, readers


async def find_account(client: Client, number: str, timeout: float) -> str:
    """The JID of a number. Raises PermanentError when it has no account."""
    answers = await ask(client, lambda: client.handle.is_on_whatsapp("+" + number), timeout)
    if not answers or not answers[0].IsIn:
        raise PermanentError(f"+{number} is not on WhatsApp", error_class=ErrorClass.RECIPIENT)
    found = answers[0].JID
    return f"{found.User}@{found.Server}"


async def hidden_id(client: Client, jid: str, timeout: float) -> JID | None:
    """The LID of a JID, to which the library writes; None if WhatsApp names none."""
    address = parse_jid(jid)
    if address.Server != USER_SERVER:
        return address
    if (known := client.hidden_ids.get(jid)) is not None:
        return known
    stored = await ask(client, lambda: client.handle.get_lid_from_pn(address), timeout)
    if not stored.User:
        # The library stores the answer, but does not return the LID in it.
        await ask(client, lambda: client.handle.get_user_info(address), timeout)
        stored = await ask(client, lambda: client.handle.get_lid_from_pn(address), timeout)
    if not stored.User:
        return None
    client.hidden_ids[jid] = stored
    return stored


async def readers_of(client: Client, address: JID, timeout: float) -> list[str]:
    """The devices of an account, as the library writes them in its log, without this one."""
    session = parse_jid(client.session)
    own = await hidden_id(client, own_number(client), timeout)
    if own is not None and own.User == address.User:
        devices = await ask(client, lambda: client.handle.get_user_devices(address), timeout)
        return [format_jid(device) for device in devices if device.Device != session.Device]
    # Each message also goes to the sender's other devices: asked for together, the library need not ask for those again.
    asked = [address] if own is None else [address, own]
    devices = await ask(client, lambda: client.handle.get_user_devices(*asked), timeout)
    return [format_jid(device) for device in devices if own is None or device.User != own.User]


async def readers_after(client: Client, jid: str) -> list[str] | None:
    """The recipient's devices after a message to this JID: from the client, which keeps the list that it encrypted for.

    Empty: it had none. None: that is not known now, also when the wait is cancelled: WhatsApp has acknowledged the message, and
    nothing that happens here may make it doubtful. `jid`: as `find_readers` returned it.
    """
    try:
        # Its own limit comes before that of a question, which ends the client: only this one can encrypt the message again.
        async with asyncio.timeout(AFTER_TIMEOUT):
            hidden = await hidden_id(client, jid, 2 * AFTER_TIMEOUT)
            return None if hidden is None else await readers_of(client, hidden, 2 * AFTER_TIMEOUT)
    except (SendError, TimeoutError, asyncio.CancelledError):
        return None
    except Exception:
        log.exception("the devices of a recipient cannot be read", action="send", device=client.device_id)
        return None


async def other_addresses(
    client: Client, address: str, jid: str, readers: list[str] | None, timeout: float
) -> tuple[str, ...]:
    """Addresses of a recipient besides this one: another number, and the LID; of a LID, its number if the session knows it.

    `jid`, `readers`: what `find_readers` returned.
    """
    if readers is None:
        return ()
    found = {recipient_at(one).address for one in (jid, *readers)}
    if jid.endswith(f"@{HIDDEN_SERVER}"):
        number = await ask(client, lambda: client.handle.get_pn_from_lid(parse_jid(jid)), timeout)
        found |= {of_number(number.User).address} if number.User else set()
    return tuple(sorted(found - {address}))


def own_number(client: Client) -> str:
    """The JID of the client's account, by its number."""
    session = parse_jid(client.session)
    return f"{session.User}@{session.Server}"


def own_addresses(client: Client) -> list[str]:
    """The JIDs of the client's account, its LID only once `find_readers` has asked for it."""
    number = own_number(client)
    hidden = client.hidden_ids.get(number)
    return [number] if hidden is None else [number, f"{hidden.User}@{hidden.Server}"]


async def ask(client: Client, question: Callable[[], Awaitable[T]], timeout: float) -> T:
    """A question to WhatsApp or to the session store."""
    try:
        return await client.call(question, timeout)
    except GetJIDFromStoreError as error:
        raise store_error(str(error)) from None
    except (NeonizeError, ClientFailedError) as error:
        raise not_sent(error) from None
    except TimeoutError as error:
        client.abandon(f"WhatsApp did not answer within {timeout:g} seconds")
        raise not_sent(error) from None


def not_sent(error: Exception) -> SendError:
    """What an error of a step before the hand-over means."""
    if isinstance(error, ClientFailedError):
        return error.failure.as_error()
    text = str(error) or "WhatsApp did not answer in time"
    read = send_error(text, SendContext("the recipient", 0.0))
    if not isinstance(read, InDoubtError):
        return read
    error_class = ErrorClass.TIMEOUT if isinstance(error, TimeoutError) else ErrorClass.CONNECTION
    return DeviceUnavailableError(f"before the hand-over: {text}", error_class=error_class)
