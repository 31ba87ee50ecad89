"""Why a phone was not linked, in words: for its owner, who may know nothing of shardd, and for operators."""

from __future__ import annotations

from typing import Final

from shardd.dashboard.linking import FULL, TRIED
from shardd.errors import PairingFailure
from shardd.queue.pairing_links import PAIRED

FOR_OWNER: Final = {
    PairingFailure.WRONG_NUMBER: (
        "This link is for a phone with another number. Nothing is linked. Use the right phone, or ask whoever sent you the link."
    ),
    PairingFailure.TAKEN: (
        "This number is already linked here, and a number can be linked once. Ask whoever sent you the link."
    ),
    PairingFailure.TIMEOUT: "No phone was linked in time. Nothing has changed; try again when the phone is at hand.",
    PairingFailure.NO_CODE: (
        "WhatsApp gave no code for this number. Check the number, wait a few minutes, or use the QR code."
    ),
    PairingFailure.NOT_LINKED: "WhatsApp refused to link the phone. Nothing has changed; wait a few minutes, then try again.",
    PairingFailure.NO_LOGIN: (
        "The phone was linked, but could not be used, so the link was ended again. Try again; if the phone still lists the new "
        "linked device, remove it there first."
    ),
    PairingFailure.OUTDATED: (
        "WhatsApp does not accept the software here, which has to be updated first. Tell whoever sent you the link; your phone "
        "is all right."
    ),
    PairingFailure.BANNED: "WhatsApp has banned this account for a while. The phone itself says more.",
    PairingFailure.UNREACHABLE: "WhatsApp cannot be reached from here right now. Try again in a few minutes.",
    PairingFailure.BUSY: "Somebody else is linking a phone for this right now. Try again in a few minutes.",
    PairingFailure.CHANGED: "This has been changed meanwhile. Nothing is linked; ask whoever sent you the link for a new one.",
    PairingFailure.DATABASE: "Something does not work here right now. Try again in a few minutes.",
    PairingFailure.ENDED: "The program that links phones ended unexpectedly. Nothing has changed; try again.",
    FULL: "Many phones are being linked right now. Try again in a minute.",
    TRIED: "This link was tried too often. Ask whoever sent it to you for a new one.",
}
FOR_OPERATOR: Final = {
    PAIRED: "linked",
    PairingFailure.WRONG_NUMBER: "another number than the device's",
    PairingFailure.TAKEN: "the number is another device's",
    PairingFailure.TIMEOUT: "no phone was linked in time",
    PairingFailure.NO_CODE: "WhatsApp gave no code for the number",
    PairingFailure.NOT_LINKED: "WhatsApp refused",
    PairingFailure.NO_LOGIN: "the first login failed",
    PairingFailure.OUTDATED: "WhatsApp refuses the library: shardd guide library",
    PairingFailure.BANNED: "WhatsApp banned the account for a while",
    PairingFailure.UNREACHABLE: "WhatsApp could not be reached",
    PairingFailure.BUSY: "it was being paired elsewhere",
    PairingFailure.CHANGED: "the device was changed or removed",
    PairingFailure.DATABASE: "the database did not answer",
    PairingFailure.ENDED: "the process of the pairing ended",
}
AGAIN: Final = frozenset(FOR_OWNER) - {PairingFailure.TAKEN, PairingFailure.OUTDATED, PairingFailure.CHANGED, TRIED}
"""Failures after which the same link may be tried again with some hope."""
