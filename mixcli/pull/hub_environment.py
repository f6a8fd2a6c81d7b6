"""Check the environment variables of the Hub before huggingface_hub reads them: address, timeouts, token.

huggingface_hub takes these as they are, some of them while it is imported; here a wrong one is a sentence that names the variable.
"""

import os
from urllib.parse import urlsplit

from mixcli.errors import UsageError

TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
LONGEST = 3600  # seconds of one timeout
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
MAX_TOKEN_FILE = 1 << 16


def check() -> None:
    """Raise UsageError for a setting that cannot work; blanks and slashes around an address are taken away."""
    _check_endpoint()
    for name in TIMEOUTS:
        text = os.environ.get(name, "").strip()
        if text and not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= LONGEST):
            raise UsageError(f"{name}={text[:40]!r} is not a number of seconds from 1 to {LONGEST}")
    for name in TOKENS:
        check_token(os.environ.get(name, ""), f"the token in {name}")


def check_token(token: str, what: str) -> None:
    """Raise UsageError for a token that cannot go into a header; it is not shown."""
    token = token.strip()
    if not all("!" <= c <= "~" for c in token):
        raise UsageError(
            f"{what} has characters that are invalid in a token (spaces, line breaks or non-ASCII letters); set it again, or unset it"
        )
    if len(token) > 4096:
        raise UsageError(
            f"{what} is {len(token):,} characters long, too long for a token; set it again, or unset it"
        )


def _check_endpoint() -> None:
    text = os.environ.get("HF_ENDPOINT")
    if text is None:
        return
    plain = text.strip().rstrip("/")
    if not plain:
        del os.environ["HF_ENDPOINT"]  # empty means not set
        return
    try:
        parts = urlsplit(plain)
        host, port, login = parts.hostname, parts.port, "@" in plain
    except ValueError:  # not shown: it may hold a password
        raise UsageError("HF_ENDPOINT is not a valid URL; use https://host or https://host:port") from None
    if login:
        raise UsageError(
            "HF_ENDPOINT contains a user name or a password; set the URL alone, and put a token in HF_TOKEN"
        )
    shown = repr(plain.partition("?")[0][:80])  # what follows may be a secret
    if "://" not in plain:
        raise UsageError(f"HF_ENDPOINT={shown} has no scheme; use https://{plain[:80]}")
    if parts.scheme not in {"http", "https"}:
        raise UsageError(f"HF_ENDPOINT={shown} is neither http nor https; use https://host")
    if (
        not host
        or port == 0
        or parts.query
        or parts.fragment
        or any(c.isspace() or not c.isprintable() for c in plain)
    ):
        raise UsageError(f"HF_ENDPOINT={shown} is not a valid URL; use https://host or https://host:port")
    os.environ["HF_ENDPOINT"] = f"{parts.scheme}://{plain.partition('://')[2]}"
