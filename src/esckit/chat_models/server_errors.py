"""What a server says when it does not answer, in whatever form: its sentence, its codes, and the fields it blames.

Everybody nests errors in another way: an object, a list, a text, a text that holds JSON, FastAPI's list of details, an
error inside an error. All of it is read, and what it means is told by the tables here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

__all__ = ["ServerError", "is_web_page", "read_error", "seen"]

_TEXTS: Final = {"message", "msg", "detail", "error", "errmsg", "errormsg", "errormessage", "statusmsg", "raw"}
_TEXTS_TOO: Final = {"description", "title", "errordescription"}
_INSIDE: Final = {
    "error",
    "errors",
    "innererror",
    "detail",
    "details",
    "message",
    "metadata",
    "raw",
    "baseresp",
    "data",
}
_INSIDE_TOO: Final = {"fieldviolations", "body", "response"}
_CODES: Final = {"code", "type", "status", "errorcode", "statuscode", "errortype", "reason"}
_BLAMED: Final = {"param", "loc", "field", "parameter", "params"}
_DEPTH: Final = 8

_STATUS_OF: Final = (
    (402, r"quotaexhausted|insufficient(quota|balance|credit|fund)|billing|payment|arrear|exceededcurrentquota"),
    (429, r"ratelimit|toomany|resourceexhausted|throttl|limitexceeded|quota"),
    (503, r"overload|unavailable|busy|capacity"),
    (504, r"timeout|deadline"),
    (401, r"apikey|unauth|authentic|invalidtoken|credential"),
    (403, r"permission|forbidden|denied"),
    (404, r"notfound|unknownmodel|nosuch|notexist"),
    (400, r"badrequest|invalid|validation|unprocess|contextlength|unsupported"),
)
"""The HTTP status that a code in words stands for, by the first pattern in it."""

_SPENT: Final = re.compile(_STATUS_OF[0][1])
_SPENT_NUMBERS: Final = {"1113"}  # Zhipu
_UNKNOWN_MODEL: Final = re.compile(
    r"modelnot(found|exist|supported)|unknownmodel|invalidmodel|nosuchmodel|deploymentnotfound"
)

_FILTER_CODES: Final = re.compile(
    r"contentfilter|contentpolicy|contentrisk|contentmoderation|contentblocked|datainspection|responsibleai|"
    r"sensitivecontent|prohibitedcontent|guardrail|moderation|safetyviolation|policyviolation|invalidprompt|"
    r"unsafecontent|inputrisk|riskcontent|newsensitive|censor"
)
_FILTER_NUMBERS: Final = {"1301", "1026", "1027", "10013", "10014"}  # Zhipu, MiniMax, iFlytek
_FILTER_STATUSES: Final = {400, 403, 422, 500}
_LEGAL: Final = 451  # "unavailable for legal reasons": with this status servers filter, and do nothing else
_FILTER_WORDS: Final = re.compile(
    r"content exists risk|considered high risk|for safety reasons|content audit|suspected of violation"
    r"|(input|output|new)_sensitive"
    r"|(inappropriate|unsafe|sensitive|prohibited|harmful|illegal|offensive|disallowed)( \w+)?( or \w+)? "
    r"(content|input|output|prompt|text|material|words?|topics?)"
    r"|content (management )?polic|(usage|safety|responsible ai|acceptable use) polic|safety (system|guideline|filter)"
    r"|content filter(ing|ed|s)?\b(?! (parameter|setting|config|option))"
    r"|\b(prompt|input|output|content|message|text)s?\b[^.]{0,40}\b(was|were|is|been) (\w+ )?(flagged|blocked)"
    r"|\b(prompt|input|output|content|message|text|request|response)s?\b[^.]{0,40}\b(was|were|is|been) (\w+ )?filtered"
    r"|request was flagged|requires moderation"
    r"|blocked (by|for|due to|because of) [^.]{0,40}(safety|guardrail|moderation|polic|filter)"
    r"|violat\w+ [^.]{0,40}(content|usage|safety|community|use) (polic|guideline|standard)"
    r"|(?<!大小写)敏感|不安全|(?<!账号)(?<!账户)违规|违禁|违法|不合规|(内容|安全)审核|审核(不|未)通过|内容安全|存在风险|高风险|有害|不当(内容|信息)|不良信息|法律法规",
    re.IGNORECASE,
)
_TOO_LONG_CODES: Final = re.compile(r"contextlength|contextsize|contextwindow|stringabovemaxlength|prompttoolong")
_TOO_LONG_WORDS: Final = re.compile(
    r"maximum context length|context (length|window|size) (is |was |has been )?exceed|too many (input )?tokens"
    r"|exceeds? (the |this )?(\w+('s)? ){0,3}context (length|window|size)|(prompt|input) is too long"
    r"|range of input length",
    re.IGNORECASE,
)


class ServerError(NamedTuple):
    """What a server said instead of an answer.

    Attributes:
        message: its sentences; empty where it gave none.
        codes: its codes and types in the order found, in small letters and digits alone.
        blamed: words of the field that it names as wrong, in small letters ("body", "top_p").
        generated: the broken reply that it shows, where it checks JSON itself.
    """

    message: str
    codes: tuple[str, ...] = ()
    blamed: tuple[str, ...] = ()
    generated: str | None = None

    @property
    def status(self) -> int:
        """The HTTP status that its codes stand for; 500 where they do not say."""
        numbers = [int(code) for code in self.codes if code.isascii() and code.isdigit() and 400 <= int(code) < 600]
        if numbers:
            return numbers[0]
        words = " ".join(self.codes)
        return next((status for status, pattern in _STATUS_OF if re.search(pattern, words)), 500)

    def filtered(self, status: int) -> bool:
        """Whether a filter, and no mistake of ours, kept the model from answering."""
        if any(_FILTER_CODES.search(code) or code in _FILTER_NUMBERS for code in self.codes):
            return True
        return status == _LEGAL or (status in _FILTER_STATUSES and bool(_FILTER_WORDS.search(self.message)))

    @property
    def spent(self) -> bool:
        """Whether the account has nothing left."""
        return any(_SPENT.search(code) or code in _SPENT_NUMBERS for code in self.codes)

    @property
    def unknown_model(self) -> bool:
        """Whether there is no such model."""
        return any(_UNKNOWN_MODEL.search(code) for code in self.codes)

    @property
    def too_long(self) -> bool:
        """Whether prompt and reply do not fit into the model's context."""
        return any(map(_TOO_LONG_CODES.search, self.codes)) or bool(_TOO_LONG_WORDS.search(self.message))


def read_error(body: Any) -> ServerError:
    """Read the body of an error: JSON's value, or the text where it is none."""
    if isinstance(body, str):
        body = _json_inside(body)
    found = list(_walk(body, _DEPTH))
    texts, codes, blamed, shown = ([text for kind, text in found if kind == wanted] for wanted in _KINDS)
    words = dict.fromkeys(word.casefold() for text in blamed for word in re.findall(r"[A-Za-z_]\w*", text))
    return ServerError(
        "; ".join(dict.fromkeys(texts)), tuple(dict.fromkeys(codes)), tuple(words), next(iter(shown), None)
    )


_KINDS: Final = ("text", "code", "blamed", "generated")


def _walk(node: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Everything that an error says, each with its kind."""
    if isinstance(node, str):
        text = seen(node) if is_web_page(node) else node.strip()
        if text:
            yield "text", text
    elif isinstance(node, list) and depth:
        for part in node:
            yield from _walk(part, depth - 1)
    elif isinstance(node, dict) and depth:
        place = node.get("loc")
        where = f"{'.'.join(map(str, place))}: " if isinstance(place, list) else ""
        for key, value in node.items():
            yield from _field(re.sub(r"[\W_]", "", str(key)).casefold(), value, where, depth)


def _field(name: str, value: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
    if name in _CODES and isinstance(value, str | int) and not isinstance(value, bool):
        yield "code", re.sub(r"[\W_]", "", str(value)).casefold()
    elif name in _BLAMED and isinstance(value, str | list):
        yield "blamed", " ".join(map(str, value)) if isinstance(value, list) else value
    elif name == "failedgeneration" and isinstance(value, str):
        yield "generated", value
    elif isinstance(value, str) and name in _TEXTS | _TEXTS_TOO:
        inside = _json_inside(value)
        yield from _walk(f"{where}{value}" if isinstance(inside, str) else inside, depth - 1)
    elif isinstance(value, dict | list) and name in _INSIDE | _INSIDE_TOO:
        yield from _walk(value, depth - 1)


def _json_inside(text: str) -> Any:
    """The object or list that a text is, or the text."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return text


def is_web_page(text: str) -> bool:
    """Whether a text is HTML."""
    return bool(
        re.match(
            r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype html|html|head|body|title|h1|center)\b", text, re.I | re.S
        )
    )


def seen(text: str, most: int = 120) -> str:
    """The beginning of what a person would see: of a web page its title, or else its words."""
    if is_web_page(text):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        bare = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.IGNORECASE | re.DOTALL)
        text = title[1] if title and title[1].strip() else bare
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"
