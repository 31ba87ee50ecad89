"""Serves the operations: who asks, may they, what do they send; then the work, and its answer as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

import msgspec
from aiohttp import web

from shardd.dashboard.api.guard import Caller, Guard, allow
from shardd.dashboard.api.operations import ROOT, Call, Operation, Reply
from shardd.dashboard.api.problems import (
    DEFECT,
    MALFORMED,
    MEDIA,
    METHOD,
    MISDIRECTED,
    NO_SUCH,
    TOO_LARGE,
    ProblemError,
    answer,
    problem_of,
)
from shardd.dashboard.api.reading import read_query
from shardd.dashboard.shares import Shares
from shardd.dashboard.site import ACT, ANY_PATH, Site
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.plain import plain
from shardd.supervisor.http_listener import Handler

log = get_logger(__name__)

MOST_BODY: Final = 8 << 20
"""Bytes of a request: a thousand jobs."""
AT_ONCE: Final = 192
"""Requests that are answered at a time: the pages need some connections, too."""
AT_ONCE_OF_ONE: Final = 64
"""Those of one token."""
PATTERNS: Final = {"job": "[0-9]{1,18}", "shard": "[0-9]{1,9}"}
"""What a part of a path looks like, if not everything will do."""


def routes(operations: Iterable[Operation], guard: Guard, site: Site) -> list[web.RouteDef]:
    """One for each, and one for every other request below `ROOT`."""
    operations = list(operations)
    answering = Shares("are answered", "ask when one has its answer", most=AT_ONCE, most_of_one=AT_ONCE_OF_ONE)
    made = [
        web.route(one.method, ROOT + _pattern(one.path), _answered(_serve(one, guard, site, answering)))
        for one in operations
    ]
    return [*made, *(web.route("*", path, _answered(_miss(operations, guard))) for path in ("/api", f"/api{ANY_PATH}"))]


def is_of_api(request: web.Request) -> bool:
    """Whether a program asks, to whom every answer is a problem and no page."""
    return request.path == "/api" or request.path.startswith("/api/")


def refused_name(words: str) -> web.Response:
    """The answer to a request for another name."""
    return answer(ProblemError(MISDIRECTED, words))


def _serve(operation: Operation, guard: Guard, site: Site, answering: Shares) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        request[ACT] = operation.act
        caller = await _allowed(operation, guard, site, request)
        with answering.one_more(caller.lane):
            return await answer_to(request, caller)

    async def answer_to(request: web.Request, caller: Caller) -> web.StreamResponse:
        waits = not request.content.is_eof()
        if "\0" in request.path:
            raise ProblemError(NO_SUCH, f"there is no {request.path[:200]}: names have no character U+0000")
        query = read_query(operation.query, {name: request.query.getall(name) for name in request.query})
        body = await _body(request, wanted=operation.body is not None)
        if waits:  # the token may have ended while the body arrived
            caller = await _allowed(operation, guard, site, request)
        value = await operation.handle(Call(request, caller, query, body))
        if isinstance(value, web.StreamResponse):
            return value
        reply = value if isinstance(value, Reply) else Reply(value, operation.status)
        # Not by msgspec, which has no integers beyond 64 bits: a number in the metadata of a job may be any.
        shown = msgspec.to_builtins(reply.value) if isinstance(reply.value, msgspec.Struct) else plain(reply.value)
        text = json.dumps(shown, ensure_ascii=False, allow_nan=False)
        return web.Response(text=text, content_type="application/json", status=reply.status)

    return handle


async def _allowed(operation: Operation, guard: Guard, site: Site, request: web.Request) -> Caller:
    """Who asks. Raises ProblemError and DatabaseError."""
    caller = await guard.caller(request)
    try:
        allow(caller, operation.may)
    except ProblemError as problem:
        if operation.act:
            await site.refused(caller, request.path, why=problem.detail)
        raise
    return caller


async def _body(request: web.Request, *, wanted: bool) -> bytes:
    """Raises ProblemError."""
    if not request.can_read_body:
        return b""
    if not wanted:
        raise ProblemError(MALFORMED, f"{request.method} {request.path[:200]} takes no body: leave it out")
    encoding = request.headers.get("Content-Encoding", "identity")
    if (
        request.content_type != "application/json"
        or encoding != "identity"
        or (request.charset or "utf-8").lower() != "utf-8"
    ):
        given = f"{request.headers.get('Content-Type', 'nothing')[:80]}{'' if encoding == 'identity' else f', {encoding[:40]}'}"
        raise ProblemError(MEDIA, f"the body is {given}: send Content-Type: application/json, in UTF-8, not compressed")
    try:
        return await request.clone(client_max_size=MOST_BODY).read()
    except web.HTTPRequestEntityTooLarge:
        raise ProblemError(
            TOO_LARGE, f"the body is larger than {MOST_BODY >> 20} MiB: send fewer jobs in one request"
        ) from None


def _miss(operations: Iterable[Operation], guard: Guard) -> Handler:
    """What is not there, or not by this method; those without a token are not told which."""
    known = [(re.compile(re.sub(r"\{(\w+)\}", _group, one.path)), one.method) for one in operations]

    async def handle(request: web.Request) -> web.StreamResponse:
        await guard.caller(request)
        path = request.path.removeprefix(ROOT)
        allowed = sorted({method for pattern, method in known if pattern.fullmatch(path)})
        if allowed and request.path.startswith(ROOT):
            problem = ProblemError(
                METHOD, f"{request.method} is not a method of {request.path[:200]}: use {', '.join(allowed)}"
            )
            problem.headers["Allow"] = ", ".join(allowed)
            raise problem
        raise ProblemError(NO_SUCH, f"there is no {request.path[:200]}; all there is: {ROOT}/openapi.json")

    return handle


def _pattern(path: str) -> str:
    return re.sub(
        r"\{(\w+)\}", lambda match: f"{{{match[1]}{':' + PATTERNS[match[1]] if match[1] in PATTERNS else ''}}}", path
    )


def _group(match: re.Match[str]) -> str:
    return f"(?:{PATTERNS.get(match[1], '[^/]+')})"


def _answered(handler: Handler) -> Handler:
    """With every error as a problem."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            try:
                return await handler(request)
            except SharddError as error:
                raise problem_of(error) from error
        except ProblemError as problem:
            if problem.kind is DEFECT:
                log.error("a request failed", action="request_failed", listener="api", error=problem.detail)
            made = answer(problem)
            if not request.content.is_eof():
                made.force_close()  # what it still sends is not read
            return made
        except (ConnectionError, web.RequestPayloadError):
            raise  # nobody is there to read an answer
        except Exception as error:  # a defect of ours
            log.exception("a request failed", action="request_failed", listener="api", error=error)
            return answer(ProblemError(DEFECT, "this is a defect of shardd; its log has the details"))

    return handle
