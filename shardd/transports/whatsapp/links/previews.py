"""The previews of links, each made once per worker and hour, however many texts contain the link.

All jobs with one link wait for the same fetch. That there is no preview is remembered, too, for a shorter time; a server that
does not answer is left alone for a while with all of its pages, because a campaign may have a link for each recipient.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from yarl import URL

from shardd.bounded import remember
from shardd.errors import DeviceUnavailableError, ErrorClass, SendError
from shardd.logs import get_logger
from shardd.transports.whatsapp.links.page_reader import MAX_PAGE, PageReader
from shardd.transports.whatsapp.media.fetcher import MediaFetcher
from shardd.transports.whatsapp.media.previews import Previews
from shardd.urls import safe_url

log = get_logger(__name__)

PAGE_SECONDS: Final = 9.0
"""For a page, including the wait for a turn and all redirects."""
PICTURE_SECONDS: Final = 6.0
"""For its picture, including the wait for a turn. A text waits for both at most."""
MAX_PICTURE: Final = 2 * 1024 * 1024
"""Bytes of a picture; a larger one is not shown."""
KEPT: Final = 3600.0
"""Seconds for which a preview is used."""
KEPT_WITHOUT: Final = 300.0
"""Seconds before a page without a preview is fetched again."""
LEFT_ALONE: Final = 60.0
"""Seconds before a server that does not answer is asked again."""
AT_ONCE: Final = 8
"""Pages that are fetched at the same time."""
MOST: Final = 500
"""Links that are remembered, of about 5 kB each."""
_PAGES: Final = frozenset({None, "text/html", "application/xhtml+xml"})


@dataclass(frozen=True, slots=True)
class LinkPreview:
    """What a page says about itself; `picture`: a small JPEG."""

    title: str
    description: str
    picture: bytes | None


class NoPreviewError(Exception):
    """A page has no preview; its text says why. `kept`: for how many seconds that holds."""

    def __init__(self, why: str, kept: float = KEPT_WITHOUT) -> None:
        super().__init__(why)
        self.kept = kept


class LinkPreviews:
    """Makes the previews of one worker."""

    def __init__(self, media: MediaFetcher, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: in seconds."""
        self._media = media
        # Of its own: a picture that a stranger chose, and that takes long, must not hold up the images of jobs.
        self._pictures = Previews(max_bytes=MAX_PICTURE)
        self._reader = PageReader()
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._running: dict[str, asyncio.Task[LinkPreview | None]] = {}
        self._known: OrderedDict[str, tuple[float, LinkPreview | None]] = OrderedDict()
        self._silent: OrderedDict[str, float] = OrderedDict()
        self.left_out = 0
        """Texts whose link has no preview, since the start."""

    async def find(self, url: str) -> LinkPreview | None:
        """The preview of a page, within PAGE_SECONDS and PICTURE_SECONDS. Raises nothing."""
        until, preview = self._known.get(url, (0.0, None))
        if until <= self._clock():
            preview = await self._make_once(url)
        self.left_out += preview is None
        return preview

    async def close(self) -> None:
        """Stop fetching."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._reader.close()
        await self._pictures.close()

    # ---- inside

    async def _make_once(self, url: str) -> LinkPreview | None:
        if self._silent.get(URL(url).authority, 0.0) > self._clock():
            return None
        task = self._running.get(url)
        if task is None:
            task = self._running[url] = asyncio.create_task(self._make(url))
            task.add_done_callback(lambda _: self._running.pop(url, None))
        # A job that is cancelled does not end the fetch, for which others wait.
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _make(self, url: str) -> LinkPreview | None:
        preview, kept = None, KEPT
        try:
            preview = await self._fetch(url)
        except NoPreviewError as error:
            kept = error.kept
            log.info("no link preview", action="link_preview", url=safe_url(url), error=str(error))
        except Exception:
            # Whatever it is, the text is sent.
            kept = KEPT_WITHOUT
            log.exception("link preview failed unexpectedly", action="link_preview", url=safe_url(url))
        remember(self._known, url, (self._clock() + kept, preview), MOST)
        return preview

    async def _fetch(self, url: str) -> LinkPreview:
        asked = False
        try:
            async with asyncio.timeout(PAGE_SECONDS), self._turns:
                asked = True
                page = await self._media.fetch_url(url, most=MAX_PAGE)
                asked = False  # it has answered
                try:
                    if page.mime_type not in _PAGES:
                        raise NoPreviewError(f"it is not a page, but {page.mime_type}")
                    said = await self._reader.read(page.data, page.charset)
                finally:
                    page.release()
        except TimeoutError:
            if not asked:
                raise NoPreviewError("other pages take too long", kept=0) from None
            self._leave_alone(url)
            raise NoPreviewError(f"not fetched within {PAGE_SECONDS:g} seconds") from None
        except DeviceUnavailableError as error:
            raise NoPreviewError(str(error), kept=0) from None  # media_memory is spent
        except SendError as error:
            if error.error_class in {ErrorClass.CONNECTION, ErrorClass.TIMEOUT}:
                self._leave_alone(url)
            raise NoPreviewError(str(error)) from None
        if said is None:
            raise NoPreviewError("its HTML takes too long to read")
        if not said.title:
            raise NoPreviewError("the page has no title")
        picture = await self._picture(URL(page.url), said.image) if said.image else None
        return LinkPreview(said.title, said.description, picture)

    def _leave_alone(self, url: str) -> None:
        remember(self._silent, URL(url).authority, self._clock() + LEFT_ALONE, MOST)

    async def _picture(self, page: URL, image: str) -> bytes | None:
        try:
            async with asyncio.timeout(PICTURE_SECONDS), self._turns:
                url = picture_url(page, image)
                # A page in the internet must not choose what is fetched from the hosts that an operator allows.
                media = await self._media.fetch_url(str(url), most=MAX_PICTURE + 1, listed=_place(url) == _place(page))
                try:
                    made = await self._pictures.make(media.data)
                finally:
                    media.release()
        except (SendError, TimeoutError, ValueError) as error:
            why = str(error) or f"not fetched within {PICTURE_SECONDS:g} seconds"
            log.info("link preview without its picture", action="link_preview", url=safe_url(str(page)), error=why)
            return None
        return made.preview if made else None


def picture_url(page: URL, image: str) -> URL:
    """Where the picture of a page is, which may be named relative to it. Raises ValueError."""
    url = page.join(URL(image))
    if page.scheme == "https" and url.scheme == "http":
        # As browsers do: on the way from an http server it could be tampered with.
        return url.with_scheme("https")
    return url


def _place(url: URL) -> tuple[str | None, int | None]:
    return url.host, url.port
