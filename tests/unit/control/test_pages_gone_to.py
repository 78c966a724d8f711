"""Where a page's browser goes on after a login: never to another host, whatever somebody has put into the address."""

from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from modelkeep.control.identities.errors import InvalidPage
from modelkeep.control.identities.rules import REFUSED, check_page, told

HERE = "https://here.test/api/v1/auth/oidc/corp/callback"
ODD = [
    "/",
    "//",
    "\\",
    "evil.test",
    "@",
    ":",
    "?",
    "#",
    "%2f",
    "%5c",
    "%252f",
    "%09",
    "\t",
    "\n",
    " ",
    ".",
    "..",
    ";",
    "https:",
    "a",
]


def accepted(page: str) -> bool:
    try:
        check_page(page)
    except InvalidPage:
        return False
    return True


@given(st.lists(st.sampled_from(ODD), max_size=8).map("".join) | st.text(max_size=20))
@example("///evil.test")
@example("/%2f/evil.test")
def test_no_page_that_is_taken_is_of_another_host(page: str):
    for address in (page, unquote(page), unquote(unquote(page)), page.replace("\\", "/")):
        if accepted(page):
            assert page.startswith("/")
            path = address.split("?")[0].split("#")[0]
            assert "//" not in path
            assert "\\" not in path
            assert (urlsplit(urljoin(HERE, page)).netloc, httpx.URL(HERE).join(page).host) == ("here.test", "here.test")


@given(st.lists(st.sampled_from(["/models", "/", "?a=b", "&c=d%20e", f"&{REFUSED}=a_lie", "#/there"]), max_size=5).map("".join))
def test_a_page_that_is_told_why_stays_the_same_page(page: str):
    if accepted(page):
        before, after = urlsplit(page), urlsplit(told(page, "not_admitted"))
        assert (after.netloc, after.path, after.fragment) == (before.netloc, before.path, before.fragment)
        assert parse_qs(after.query)[REFUSED] == ["not_admitted"]
        assert accepted(told(page, "not_admitted"))


def test_pages_are_taken():
    """The control."""
    for page in ("/", "/models", "/models/iris?tab=drift&of=http://x.test#top", "/#/models", "/caf%C3%A9"):
        assert accepted(page), page
