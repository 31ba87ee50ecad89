"""Addresses of media URLs: every spelling of an address that is not public, and a listener that must not be contacted."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from subprocess import run

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from shardd.addresses import AllowedHosts
from shardd.errors import ErrorClass, PermanentError, SendError
from shardd.transports.whatsapp.media.download import Guard, _next_url
from shardd.transports.whatsapp.media.fetcher import MediaFetcher


class Listener:
    """A port on all addresses of this machine; whoever connects is in its backlog, whether anybody accepts or not."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])

    def connections(self) -> int:
        """How many came since the last time."""
        count = 0
        while True:
            try:
                self._socket.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


class HostileDns(AbstractResolver):
    """What numbers mean to the system it means here too; every name leads to the next of `answers`."""

    def __init__(self, *answers: str) -> None:
        self._answers = answers
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            found = [str(info[4][0]) for info in infos]
        except (OSError, UnicodeError):
            found = self._answers[self.asked % len(self._answers)].split()
            self.asked += 1
        return [ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0) for one in found]

    async def close(self) -> None:
        pass


def fetcher(*hosts: str, resolver: AbstractResolver | None = None) -> MediaFetcher:
    return MediaFetcher(folder=None, hosts=hosts, max_bytes=1000, memory=1000, timeout=5.0, resolver=resolver)


def fetch(url: str, *hosts: str, resolver: AbstractResolver | None = None) -> SendError:
    """Why nothing came."""

    async def fetching() -> SendError:
        with pytest.raises(SendError) as caught:
            await fetcher(*hosts, resolver=resolver).fetch(url)
        return caught.value

    return asyncio.run(fetching())


def _number(value: int, base: str) -> str:
    return {"decimal": f"{value}", "octal": f"0{value:o}", "hex": f"0x{value:x}", "HEX": f"0X{value:04X}"}[base]


# What IDNA takes for digits and dots: full width, circled, and the ideographic full stop.
_OTHER_DIGITS = (
    {ord("0") + digit: 0xFF10 + digit for digit in range(10)} | {ord("."): 0xFF0E},
    {ord("1") + digit: 0x2460 + digit for digit in range(9)},
    {ord("."): 0x3002},
)


@st.composite
def ipv4_spellings(draw: st.DrawFn) -> str:
    """127.0.0.1 and others of this machine, as inet_aton reads them: one to four parts, each in one of its bases."""
    value = int.from_bytes(
        bytes(draw(st.sampled_from([(127, 0, 0, 1), (127, 1, 2, 3), (0, 0, 0, 0), (127, 255, 255, 254)])))
    )
    parts = draw(st.integers(1, 4))
    numbers = [value >> 24, value >> 16 & 255, value >> 8 & 255][: parts - 1]
    numbers.append(value & (1 << 8 * (5 - parts)) - 1)
    spelled = ".".join(_number(number, draw(st.sampled_from(["decimal", "octal", "hex", "HEX"]))) for number in numbers)
    if draw(st.booleans()):
        spelled = spelled.translate(draw(st.sampled_from(_OTHER_DIGITS)))
    return spelled + draw(st.sampled_from(["", "", ".", "%2E"]))


_IPV6 = st.sampled_from(
    [
        "::1", "::", "0:0:0:0:0:0:0:1", "0000::0001", "::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:127.0.0.1", "::127.0.0.1",
        "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::",
        "fe80::1", "fe80::1%25lo", "fe80::1%lo", "::1%25lo", "::1%lo", "::1%251", "ff02::1", "::ffff:0.0.0.0", "fd00::1",
    ]
).map("[{}]".format)  # fmt: skip
_NAMES = st.sampled_from(
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "localhost6",
        "rebind.example",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "x.127.0.0.1.example",
    ]
)
_USERS = st.sampled_from(["", "", "example.com@", "user:pass@", "example.com:80@", "example.com%2F@", "example.com\\@"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(host=st.one_of(ipv4_spellings(), _IPV6, _NAMES), user=_USERS, scheme=st.sampled_from(["http", "https", "HTTP"]))
@example(host="127.0.0.1", user="", scheme="http")
@example(host="[::ffff:127.0.0.1]", user="", scheme="http")
@example(host="0x7f.1", user="", scheme="http")
@example(host="[::1]", user="", scheme="http")
def test_no_spelling_of_an_address_of_this_machine_is_connected_to(
    listener: Listener, host: str, user: str, scheme: str
) -> None:
    error = fetch(f"{scheme}://{user}{host}:{listener.port}/x", resolver=HostileDns("127.0.0.1 ::1"))
    assert listener.connections() == 0
    assert isinstance(error, PermanentError)
    assert error.error_class is ErrorClass.CONTENT


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.0/8"),
        ("[::1]", "::1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("rebind.example", "rebind.example"),
        ("rebind.example", "127.0.0.1"),
    ],
)
def test_the_listener_would_have_heard(listener: Listener, host: str, allowed: str) -> None:
    async def reach() -> None:
        listening = fetcher(allowed, resolver=HostileDns("127.0.0.1")).fetch(f"http://{host}:{listener.port}/x")
        task = asyncio.create_task(listening)
        while not listener.connections():  # noqa: ASYNC110 - a backlog cannot be awaited without being accepted from
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(reach(), 10))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:{port}/x", "127.0.0.1 has a loopback address"),
        ("http://rebind.example:{port}/x", "rebind.example has a loopback address"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 has a link-local address"),
        ("http://10.1.2.3/", "10.1.2.3 has a private address"),
        ("http://[fe80::1%25lo]:{port}/x", "an unreadable IP address"),
        ("http://8.8.8.8:25/", "8.8.8.8 has port 25, which is not a web server's"),
    ],
)
def test_a_refusal_names_the_field_the_host_and_the_fix(listener: Listener, url: str, why: str) -> None:
    error = fetch(url.format(port=listener.port), resolver=HostileDns("127.0.0.1"))
    assert isinstance(error, PermanentError)
    assert str(error).startswith("media http://")
    assert why in str(error)
    assert str(error).endswith("name the host or its address in transports.whatsapp.media_hosts")


def test_what_dns_says_later_changes_nothing(listener: Listener) -> None:
    """Rebinding: the first answer may be reached, every later one is this machine. Each answer is used once, and judged."""
    dns = HostileDns("127.0.0.2", "127.0.0.1", "127.0.0.1")
    for _ in range(3):
        fetch(f"http://rebind.example:{listener.port}/x", "127.0.0.2:1", resolver=dns)
    assert dns.asked == 3
    assert listener.connections() == 0


def test_of_several_addresses_none_is_tried_that_may_not_be(listener: Listener) -> None:
    error = fetch(f"http://both.example:{listener.port}/x", "127.0.0.2:1", resolver=HostileDns("127.0.0.1 ::1 0.0.0.0"))
    assert isinstance(error, PermanentError)
    assert listener.connections() == 0


def test_an_address_of_the_internet_is_connected_to() -> None:
    guard = Guard(AllowedHosts([]), "example.com")
    made = guard.make_socket((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("8.8.8.8", 443)))
    made.close()
    assert guard.refusal is None


@pytest.fixture
async def site() -> AsyncIterator[tuple[str, list[str]]]:
    """A site that may be fetched from: it redirects to wherever the query says, and notes who logged in."""
    logins: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        logins.append(request.headers.get("Authorization", ""))
        if "to" in request.query:
            return web.Response(status=302, headers={"Location": request.query["to"]})
        return web.Response(body=b"fine")

    app = web.Application()
    app.router.add_get("/{what}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}", logins
    await runner.cleanup()


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://0x7f.1:{port}/",
        "http://0177.0.0.1:{port}/",
        "http://2130706433:{port}/",
        "http://127.1:{port}/",
        "http://0:{port}/",
        "//127.0.0.1:{port}/",
        "http:\\\\127.0.0.1:{port}/",
        "http://example.com@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@example.com/",
        "https://127.0.0.1:{port}/",
        "ftp://127.0.0.1:{port}/",
        "file:///etc/passwd",
        "http+unix://%2Frun%2Fdocker.sock/info",
        "gopher://127.0.0.1:{port}/_x",
        "http://",
        "http://[",
        "http://rebind.example:{port}/",
    ],
)
async def test_a_redirect_is_looked_at_like_a_url(listener: Listener, site: tuple[str, list[str]], to: str) -> None:
    place, _ = site
    with pytest.raises(PermanentError, match=f"^media http://{place}/x (is refused|cannot be fetched): "):
        await fetcher(place, resolver=HostileDns("127.0.0.1")).fetch(
            f"http://{place}/x?to={to.format(port=listener.port)}"
        )
    assert listener.connections() == 0


@pytest.mark.parametrize(
    ("url", "to", "why"),
    [
        ("https://a.example/x", "http://a.example/y", "from https to http://a.example/y, which could be tampered with"),
        ("https://a.example/x", "https://u:p@b.example/y", "to https://b.example/y with a user and password"),
        ("https://a.example/x", "https://u@a.example/y", "to https://a.example/y with a user and password"),
        ("https://a.example/x", "data:text/plain,x", "to data:text/plain,…, which is not an http"),
        ("https://a.example/x", "https://b.example:0/y", "which is not an http|not a URL"),
    ],
)
def test_where_a_redirect_may_not_lead(url: str, to: str, why: str) -> None:
    with pytest.raises(PermanentError, match=why):
        _next_url(url, URL(url), to)


@pytest.mark.parametrize(
    ("url", "to", "then"),
    [
        ("http://a.example/x", "https://b.example/y", "https://b.example/y"),
        ("https://u:p@a.example/x/y", "z?q", "https://u:p@a.example/x/z?q"),
        ("https://u:p@a.example/x", "//b.example/y", "https://b.example/y"),
        ("https://u:p@a.example/x", "https://a.example:8443/y", "https://a.example:8443/y"),
    ],
)
def test_where_a_redirect_may_lead(url: str, to: str, then: str) -> None:
    assert str(_next_url(url, URL(url), to)) == then


async def test_user_and_password_go_to_the_host_that_they_are_for(site: tuple[str, list[str]]) -> None:
    place, logins = site
    port = place.rpartition(":")[2]
    reached = fetcher(place, f"localhost:{port}")
    assert (await reached.fetch(f"http://u:p@{place}/x?to=/y")).data == b"fine"
    assert logins == ["Basic dTpw", "Basic dTpw"]
    logins.clear()
    assert (await reached.fetch(f"http://u:p@{place}/x?to=http://localhost:{port}/y")).data == b"fine"
    assert logins == ["Basic dTpw", ""]


async def test_proxies_and_logins_of_the_environment_are_not_used(
    listener: Listener, site: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    place, logins = site
    assert (await fetcher(place).fetch(f"http://{place}/x")).data == b"fine"
    assert (listener.connections(), logins) == (0, [""])


_OWN_ADDRESS = """
import asyncio, ctypes, fcntl, socket, struct, sys
from shardd.errors import SendError
from shardd.transports.whatsapp.media.fetcher import MediaFetcher

NEW_USER, NEW_NET, SET_ADDRESS, SET_FLAGS, UP_AND_RUNNING = 0x10000000, 0x40000000, 0x8916, 0x8914, 0x41
if ctypes.CDLL(None).unshare(NEW_USER | NEW_NET):
    sys.exit(77)
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh14s", b"lo", UP_AND_RUNNING, b""))
fcntl.ioctl(control, SET_ADDRESS, struct.pack("16sHH4s8s", b"lo:1", socket.AF_INET, 0, socket.inet_aton("9.9.9.9"), b""))
listener = socket.create_server(("0.0.0.0", 8080))
listener.setblocking(False)
try:
    asyncio.run(MediaFetcher(folder=None, max_bytes=9, memory=9, timeout=5.0).fetch("http://9.9.9.9:8080/x"))
except SendError as error:
    print(error)
try:
    listener.accept()
except BlockingIOError:
    print("nobody came")
"""


def test_a_public_address_of_this_machine_is_refused_too() -> None:
    """In a network of its own, where an address of the internet is this machine's."""
    done = run([sys.executable, "-c", _OWN_ADDRESS], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("this system makes no network namespaces for us")
    assert "9.9.9.9 has an address of this machine" in done.stdout, done
    assert "nobody came" in done.stdout


@settings(max_examples=500)
@given(
    start=st.sampled_from(["", "data:", "file:", "file://", "http:", "http://", "HTTPS://", "ftp://"]), text=st.text()
)
def test_whatever_a_row_names_the_answer_is_media_or_words(start: str, text: str) -> None:
    async def fetching() -> None:
        try:
            await fetcher(resolver=HostileDns("127.0.0.1")).fetch(start + text)
        except SendError as error:
            assert str(error).startswith("media ")  # noqa: PT017 - either end is good

    asyncio.run(fetching())
