"""Replies that are one JSON object of a schema: which tokens may stand next, at each step (llguidance).

A schema becomes a grammar that has one way of writing each value, `json.dumps`'s, and an end: the tokens that a reply
may have are shared out among its texts, so that the object is complete before the limit comes.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from esckit.conversation.thoughts import split_thought

VERSION: Final = 1
"""Of how schemas become grammars; answers depend on it."""

_TAIL: Final = 24  # tokens in which the mark that closes a thought stands
_MOST: Final = 32  # items of a list that says nothing of how many
_COUNTED: Final = 8  # of them, where the tokens of a reply are shared out
_LEAST: Final = 8  # tokens of a text
_CHARACTER: Final = r'([^"\\\x00-\x1f]|\\["\\\/bfnrt])'
_SPACES: Final = {  # a decoder that llguidance reads, in the place of one that writes the same texts
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
_PLAIN: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_SAMPLE: Final = '{"a b": [1, "it\'s so"]}'


class UnguidedError(ValueError):
    """A tokenizer's replies cannot be guided; the message says why."""


class JsonGuides:
    """Makes guides for a tokenizer's replies.

    Args:
        tokenizer: a fast one, on bytes or of SentencePiece's kind.
        end_of_turn: the token that ends a reply, the only one that may follow the object.

    Raises:
        UnguidedError: llguidance is missing, or cannot read the tokenizer.
    """

    def __init__(self, tokenizer: Any, end_of_turn: int) -> None:
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise UnguidedError("llguidance is not installed") from error
        self.tokenizer = tokenizer
        try:
            described = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
            if (described.get("decoder") or {}).get("type") == "Metaspace":
                described["decoder"] = _SPACES
            self.tokens = LLTokenizer(json.dumps(described), eos_token=end_of_turn)
        except (AttributeError, ValueError) as error:
            raise UnguidedError(f"llguidance cannot read the tokenizer ({str(error).splitlines()[0]})") from error
        ids = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
        if self.tokens.decode_str(ids).strip() != _SAMPLE:
            raise UnguidedError("llguidance reads other texts than the tokenizer writes")
        ends = [self.tokens.decode_bytes([token]) for token in range(self.tokens.vocab_size)]
        # A text may be over after any token, so none may end within an escape.
        self.whole = torch.tensor([(len(end) - len(end.rstrip(b"\\"))) % 2 == 0 for end in ends])

    def guide(self, schema: Mapping[str, Any], limit: int, opened: str = "") -> "Guide":
        """A guide of one reply.

        Args:
            schema: JSON schema of an object, as `json_replies.strict_schema` makes it.
            limit: tokens that the reply may have, its end included.
            opened: the mark with which the prompt has opened a thought, if it has; the guide then waits for its end.

        Raises:
            TypeError: llguidance takes no such schema.
        """
        return Guide(self, schema, limit, opened)


class Guide:
    """Of one reply: what may stand next, told each token that was written."""

    def __init__(self, guides: JsonGuides, schema: Mapping[str, Any], limit: int, opened: str) -> None:
        self._guides, self._schema, self._left, self._opened = guides, schema, limit, opened
        self._thought: list[int] = []
        self._matcher = None if opened else self._begin()

    def allowed(self) -> Tensor | None:
        """Which tokens (V,) may stand next, a boolean each; None is all of them: in a thought, or at a loss."""
        if self._matcher is None or self._matcher.is_error():
            return None
        whole = self._guides.whole
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = torch.from_numpy(bits[: len(whole)]).bool()
        for possible in (allowed & whole, allowed):  # an escape that is given may be in parts
            if bool(possible.any()):
                return possible
        return None

    def take(self, token: int) -> None:
        """The next token was written."""
        self._left -= 1
        if self._matcher is not None:
            self._matcher.consume_token(token)
            return
        self._thought = [*self._thought[1 - _TAIL :], token]
        if split_thought(self._opened + self._guides.tokenizer.decode(self._thought))[1] is not None:
            self._matcher = self._begin()

    def _begin(self) -> Any:
        from llguidance import LLMatcher

        matcher = LLMatcher(self._guides.tokens, grammar_of(self._schema, self._left), log_level=0)
        if matcher.is_error():
            raise TypeError(f"a schema that replies cannot be guided by: {matcher.get_error()}")
        return matcher


# -------------------------------------------------------------------------------------------------------------- grammar


class _Rule(NamedTuple):
    """How a value is written, the most bytes of it that are given, and its texts, at most."""

    rule: str
    given: int
    texts: int = 0


def grammar_of(schema: Mapping[str, Any], limit: int) -> str:
    """The grammar of an object's JSON in so many tokens, its end included, in llguidance's form of Lark.

    What is given costs at most a token a byte. What is left is shared out evenly among the texts without a
    ``maxLength``, eight tokens each at least; a text that has one may have as many tokens. So the object ends in time
    where the limit is large enough for that. A list without ``maxItems`` may have up to 32 items, and counts as eight.
    """
    lengths: set[tuple[int, int | None]] = set()
    whole = _written(schema, schema.get("$defs", {}), lengths)
    share = max((limit - 1 - whole.given) // max(whole.texts, 1), _LEAST)
    texts = [
        f"{_characters(fewest, most)}[max_tokens={share if most is None else most}]: "
        f"/{_CHARACTER}{{{fewest},{'' if most is None else most}}}/"
        for fewest, most in sorted(lengths, key=str)
    ]
    return "\n".join([f"start: {whole.rule}", *texts])


def _characters(fewest: int, most: int | None) -> str:
    return f"chars_{fewest}_{'' if most is None else most}"


def _written(
    node: Mapping[str, Any],
    known: Mapping[str, Any],
    lengths: set[tuple[int, int | None]],
    within: tuple[str, ...] = (),
) -> _Rule:
    """How a value of a schema's node is written; the lengths that its texts may have go into ``lengths``."""

    def inner(part: Mapping[str, Any]) -> _Rule:
        return _written(part, known, lengths, within)

    name = str(node.get("$ref", "")).removeprefix("#/$defs/")
    if name in known and name not in within:
        return _written(known[name], known, lengths, (*within, name))
    if "const" in node or "enum" in node:
        return _choice([_given(value) for value in node.get("enum", [node.get("const")])])
    if "anyOf" in node:
        return _choice([inner(part) for part in node["anyOf"]])
    kind = node.get("type")
    if kind == "object" and node.get("properties"):
        return _object(node["properties"], inner)
    if kind == "array" and "items" in node:
        return _array(node, inner)
    if kind == "string" and not {"pattern", "format"} & node.keys():
        return _text(node, lengths)
    if kind in ("integer", "number"):
        return _number(node)
    if kind in ("boolean", "null"):
        return _choice([_given(value) for value in ((True, False) if kind == "boolean" else (None,))])
    # Patterns, dates, a schema that contains itself: written as llguidance does, without a promise to end.
    return _Rule(f"%json {json.dumps({**node, '$defs': dict(known), 'x-guidance': _PLAIN})}", _LEAST)


def _given(value: Any) -> _Rule:
    text = json.dumps(value, ensure_ascii=False)
    return _Rule(json.dumps(text, ensure_ascii=False), len(text.encode()))


def _choice(parts: list[_Rule]) -> _Rule:
    rule = " | ".join(part.rule for part in parts)
    return _Rule(f"({rule})", max(part.given for part in parts), max(part.texts for part in parts))


def _object(fields: Mapping[str, Any], inner: Callable[[Mapping[str, Any]], _Rule]) -> _Rule:
    rule, given, texts, before = "", 1, 0, "{"
    for name, field in fields.items():
        head = f"{before}{json.dumps(name, ensure_ascii=False)}: "
        value = inner(field)
        rule += f"{json.dumps(head, ensure_ascii=False)} {value.rule} "
        given, texts, before = given + len(head.encode()) + value.given, texts + value.texts, ", "
    return _Rule(f'({rule}"}}")', given, texts)


def _array(node: Mapping[str, Any], inner: Callable[[Mapping[str, Any]], _Rule]) -> _Rule:
    item, fewest = inner(node["items"]), int(node.get("minItems", 0))
    most = int(node.get("maxItems", max(_MOST, fewest)))
    counted = most if "maxItems" in node else max(_COUNTED, fewest)
    rule = item.rule
    if most > 1:
        rule += f' (", " {item.rule}){{{max(fewest - 1, 0)},{most - 1}}}'
    rule = (rule if fewest else f"({rule})?") if most else ""
    return _Rule(f'("[" {rule} "]")', 2 + counted * (item.given + 2), counted * item.texts)


def _text(node: Mapping[str, Any], lengths: set[tuple[int, int | None]]) -> _Rule:
    fewest, most = int(node.get("minLength", 0)), node.get("maxLength")
    lengths.add((fewest, most))
    return _Rule(f'("\\"" {_characters(fewest, most)} "\\"")', 2 + (most or 0), most is None)


def _number(node: Mapping[str, Any]) -> _Rule:
    """At most nine digits before the point and two behind it, which llguidance would write without end."""
    fine = {} if node["type"] == "integer" else {"multipleOf": 0.01}
    lowest = {} if "exclusiveMinimum" in node else {"minimum": -999_999_999}
    highest = {} if "exclusiveMaximum" in node else {"maximum": 999_999_999}
    return _Rule(f"%json {json.dumps(fine | lowest | highest | dict(node))}", 13)
