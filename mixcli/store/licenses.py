"""Explain licenses in one sentence: open weights, other terms, or unknown.

The sentences are a summary; only the text of the license counts.
"""

from dataclasses import dataclass

from mixcli.system.text import shown

UNKNOWN = "unknown"
MAX_NAME = 80  # characters of a license that is not known here


@dataclass(frozen=True)
class License:
    """A license by its SPDX id (or the name that its authors gave it), its terms in one sentence, and whether it is an open one."""

    name: str
    words: str
    is_open: bool = False

    @property
    def short(self) -> str:
        """Return its name for a table, which says where the terms are not those of an open license."""
        return self.name if self.is_open or self.name == UNKNOWN else f"{self.name} (not open)"


# SPDX id -> what it allows and asks
OPEN = {
    "Apache-2.0": "free for any use, including commercial; keep the license text with copies",
    "MIT": "free for any use, including commercial; keep the license text with copies",
    "BSD-3-Clause": "free for any use, including commercial; keep the license text with copies",
    "CC0-1.0": "no conditions at all",
    "CC-BY-4.0": "free for any use, including commercial; credit the authors",
    "CC-BY-SA-4.0": "free for any use, including commercial; credit the authors and share changes under the same license",
}
OTHER = {
    "CC-BY-NC-4.0": "not for commercial use; credit the authors",
    "CC-BY-NC-SA-4.0": "not for commercial use; credit the authors and share changes under the same license",
    "CC-BY-NC-ND-4.0": "not for commercial use, and changed copies must not be shared; credit the authors",
    "OpenRAIL": "some purposes are forbidden; read the list before you use the model",
    "Llama-2": "Meta's own terms, with a limit on the number of users",
    "Llama-3": "Meta's own terms, with a limit on the number of users and naming rules",
    "Modified-MIT": "as MIT, but not for companies (or their employees) with more than 20 million dollars of revenue a month",
    "MNPL-0.1": "Mistral's non-production terms: research and testing, not commercial use",
    "MRL-0.1": "Mistral's research terms: not for commercial use",
}
# How the Hub and GGUF files spell some of them
_SPELLED = {
    **{name.lower(): name for name in (*OPEN, *OTHER)},
    "llama2": "Llama-2",
    "llama3": "Llama-3",
    "mnpl": "MNPL-0.1",
    "mrl": "MRL-0.1",
    "mit-modified": "Modified-MIT",
    "modified mit": "Modified-MIT",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
}


def license_of(name: str | None, link: str | None = None) -> License:
    """Return what a license means; `name` is an SPDX id or what a model card says, `link` is the address of its text."""
    text = (name or "").strip()
    if not text or text.lower() in {"unknown", "none", "n/a"}:
        return License(UNKNOWN, "unknown; read the model card before you use the model")
    known = _SPELLED.get(text.lower()) or shown(text, MAX_NAME)
    where = f"; its text: {link}" if link else ""
    if known in OPEN:
        return License(known, f"{known}: open weights, {OPEN[known]}", is_open=True)
    if known in OTHER:
        return License(known, f"{known}: other terms, {OTHER[known]}{where}")
    return License(known, f"{known}: other terms; read them before you use the model{where}")
