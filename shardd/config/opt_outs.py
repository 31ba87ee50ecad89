"""The section `opt_outs`: which words of a recipient end all messages to him, and what follows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import ValidationInfo

from shardd.config.fields import Section, setting
from shardd.config.values import Reader, RefusedError, closest
from shardd.opt_out_words import MOST, plain
from shardd.pacing import CLASSES

MOST_WORDS: Final = 500
MOST_TEXT: Final = 4096
"""Characters of a confirmation."""
_NEVER_EXEMPT: Final = "marketing"
_EXEMPTIBLE: Final = tuple(name for name in CLASSES if name != _NEVER_EXEMPT)

DEFAULT_WORDS: Final = (
    "stop, stop all, stopall, unsubscribe, unsubscribe me, opt out, opt-out, optout, remove me, "  # en
    "berhenti, berhenti langganan, berhenti berlangganan, jangan kirim lagi, hentikan, "  # id, ms
    "stopp, abmelden, abbestellen, austragen, keine werbung, "  # de
    "baja, dar de baja, darme de baja, parar, no más mensajes, "  # es
    "sair, descadastrar, descadastre, cancelar inscrição, não quero receber, "  # pt
    "arrêt, arrêter, désabonner, me désabonner, se désabonner, désinscrire, désinscription, "  # fr
    "cancellami, disiscrivimi, annulla iscrizione, "  # it
    "afmelden, uitschrijven, "  # nl
    "توقف, إيقاف, الغاء الاشتراك, "  # ar
    "रोकें, बंद करो, बंद करें, band karo, "  # hi
    "стоп, отписаться, отпишите меня, "  # ru
    "abonelikten çık, "  # tr  # noqa: RUF001 - a letter of Turkish
    "退订, 取消订阅, 配信停止"  # zh, ja
)


@dataclass(frozen=True)
class _Listed(Reader):
    """Texts between commas; in Python a tuple."""

    def read(self, text: str, base: Path) -> tuple[str, ...]:  # noqa: ARG002 - the signature of every reader
        """The texts, without spaces around them; Arabic and Chinese have commas of their own."""
        return tuple(part.strip() for part in re.split("[,\u060c\u3001\uff0c]", text))

    def show(self, value: Any) -> str:
        """With commas."""
        return ", ".join(value)

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, list):
            raise RefusedError("is a list; write its parts in one line, with commas between them and without brackets")
        return super()._validate(value, info)


@dataclass(frozen=True)
class Phrases(_Listed):
    """Words and short phrases such as `stop, opt out`."""

    def check(self, value: Any) -> Any:
        """Each has a letter or a digit, and they are not endless."""
        if empty := [part for part in value if not plain(part)]:
            raise RefusedError(
                f"has a part {empty[0] or '(nothing)'} without a letter; write words such as stop, opt out"
            )
        if len(value) > MOST_WORDS or max(map(len, value)) > MOST:
            raise RefusedError(f"is too long; write at most {MOST_WORDS} words of at most {MOST} characters")
        return value


@dataclass(frozen=True)
class ExemptClasses(_Listed):
    """Classes of jobs that an opt-out does not stop."""

    def check(self, value: Any) -> Any:
        """Never marketing: then an opt-out would be none."""
        for name in value:
            if name == _NEVER_EXEMPT:
                raise RefusedError(f"has {name}, which is what an opt-out is against; write {' or '.join(_EXEMPTIBLE)}")
            if name not in _EXEMPTIBLE:
                near = closest(name.lower(), _EXEMPTIBLE)
                known = ", ".join(_EXEMPTIBLE)
                raise RefusedError(
                    f"has a part {name or '(nothing)'} that is none of {known}; write {near or 'one of these'}"
                )
        return value


@dataclass(frozen=True)
class MessageText(Reader):
    """What is sent to a person."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The text without spaces around it."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """Not empty, nor longer than anybody reads."""
        if not value:
            raise RefusedError("is empty; write a sentence, or null to send nothing")
        if len(value) > MOST_TEXT or "\0" in value:
            raise RefusedError(f"is no text for a message; write at most {MOST_TEXT} characters")
        return value


class OptOutsConfig(Section):
    """Who wants no more messages, and what holds then."""

    words: Annotated[tuple[str, ...] | None, Phrases()] = setting(
        DEFAULT_WORDS,
        "Words by which a recipient opts out, with commas between them. A message counts when it says nothing else, whatever its "
        'case, accents, signs and emoji, with or without "please"; a question does not. An opt-out is final, so no word that '
        "people also use for something else belongs here, such as cancel or end. null: no message opts anybody out.",
        reload="shard",
    )
    confirm: Annotated[str | None, MessageText()] = setting(
        None,
        "What is answered, once, to who opts out by a message; it goes through the device that heard it, as a job of the class "
        "reply. null: nothing, because some jurisdictions forbid what others demand.",
        reload="live",
    )
    exempt: Annotated[tuple[str, ...] | None, ExemptClasses()] = setting(
        None,
        "Classes of jobs that are sent also to who opted out: service, reply, or both with a comma. Never marketing. It holds "
        "for all hosts; the one that read its config last decides. null: none, an opt-out stops everything.",
        reload="live",
    )
