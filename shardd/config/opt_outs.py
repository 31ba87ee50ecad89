"""The section `opt_outs`: which messages opt a recipient out, and what follows."""

from __future__ import annotations

from typing import Final

from shardd.config.fields import Section, setting
from shardd.config.values.words import ExemptClasses, Message, OptOutPhrases, TakeBackPhrases

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
    "退订, 取消订阅, 配信停止, "  # zh, ja
    # usual buttons of marketing templates
    "stop promotions, stop promo, unsubscribe from promos, unsubscribe from all, hentikan promosi, stop promosi, "
    "werbung beenden, detener promociones, parar promoções, arrêter les promotions, interrompi promozioni"
)


class OptOutsConfig(Section, reload="live"):
    """How recipients opt out, and what an opt-out stops."""

    words: OptOutPhrases | None = setting(
        DEFAULT_WORDS,
        "Words by which a recipient opts out, separated by commas. The message must contain nothing else; case, accents, "
        'punctuation, emoji and a "please" do not matter, and a question never counts. Do not list words that people also '
        "use for something else, such as cancel or end. null: no message opts anyone out.",
        reload="shard",
    )
    confirm: Message | None = setting(
        None,
        "One-time confirmation sent to whoever opts out by a message, from the device that received it, as a job of class "
        "reply. null: none, because some jurisdictions forbid what others require.",
    )
    take_back_words: TakeBackPhrases | None = setting(
        None,
        "Words by which somebody who opted out takes that back, such as start, unstop; compared like `words`. What counts is "
        "what a person said last, to any device. null: an opt-out cannot be taken back.",
        reload="shard",
    )
    take_back_confirm: Message | None = setting(
        None,
        "Confirmation sent to whoever takes an opt-out back, as a job of class reply. null: none.",
    )
    exempt: ExemptClasses | None = setting(
        None,
        "Classes of jobs that are sent even to recipients who have opted out: service, reply, or both with a comma; never "
        "marketing. It applies to all hosts; the host that read its config last decides. null: none, an opt-out stops "
        "everything.",
    )
