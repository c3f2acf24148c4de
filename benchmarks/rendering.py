"""What rendering costs and what sharing keeps, for chat templates of each family.

    python benchmarks/rendering.py [--corpus ESCONV.json] [--tokenizer FOLDER] [--templates FOLDER]

For each template, the coupled model's targets of every supporter turn. ``sharing``: tokens of one row a turn for each
token of the tries. ``plain``: the seconds of rendering and encoding each row with the tokenizer itself, for each second
of ours (one process, one thread). Without ``--templates``: ChatML, with and without an empty thought before the last
reply. Without ``--corpus``: the starter corpus, with a tokenizer that learnt on it.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from esckit.conversation import Conversation
from esckit.conversation.turn_rule import Message, reply_text, to_messages
from esckit.corpora import load_corpus, read_corpus
from esckit.errors import TemplateError
from esckit.language_models.pocket import train_tokenizer
from esckit.language_models.token_tree import TokenTrie
from esckit.rendering import Renderer, past_strategies, supporter_turns
from esckit.strategy import ESCONV

CHATML: Final = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}THOUGHT{{- m.content + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\nEMPTY' -}}{%- endif -%}"
)
EMPTY: Final = "<think>\n\n</think>\n\n"
LAST: Final = f"{{%- if loop.last and m.role == 'assistant' -%}}{{{{- '{EMPTY}' -}}}}{{%- endif -%}}"
FAMILIES: Final = {
    "chatml": CHATML.replace("THOUGHT", "").replace("EMPTY", ""),
    "chatml, an empty thought before the last reply": CHATML.replace("THOUGHT", LAST).replace("EMPTY", EMPTY),
}


def ours(renderer: Renderer, conversations: list[Conversation]) -> tuple[float, int, int]:
    """Seconds, tokens of rows, tokens of tries."""
    seconds, rows, nodes = 0.0, 0, 0
    for conversation in conversations:
        start = time.perf_counter()
        examples = renderer.examples(conversation, "coupled", past_strategies(conversation, "gold"))
        seconds += time.perf_counter() - start
        rows += sum(len(each.context) + len(each.given) + len(each.scored) for each in examples)
        nodes += len(TokenTrie.merge(examples))
    return seconds, rows, nodes


def plainly(renderer: Renderer, conversations: list[Conversation]) -> float:
    """Seconds of the template and the tokenizer alone, a row a turn."""
    tokenizer, system = renderer.tokenizer, renderer.system("coupled", "")
    start = time.perf_counter()
    for conversation in conversations:
        shown = past_strategies(conversation, "gold")
        for turn in supporter_turns(conversation):
            chat = [system, *to_messages(conversation.path(turn.parent), shown)]
            chat.append(Message("assistant", reply_text(turn.strategy, turn.text or "")))
            tokenizer.apply_chat_template([{"role": m.role, "content": m.content} for m in chat], return_dict=False)
    return time.perf_counter() - start


def measure(tokenizer: Any, conversations: list[Conversation]) -> dict[str, Any]:
    """The figures of one template."""
    renderer = Renderer(tokenizer, ESCONV, max_context=1_000_000)
    seconds, rows, nodes = ours(renderer, conversations)
    try:
        plain: Any = round(plainly(renderer, conversations) / seconds, 2)
    except Exception as error:  # noqa: BLE001 - a template that takes no system role, for one: there is no plain way
        plain = f"refused: {str(error)[:60]}"
    return {"sharing": round(rows / nodes, 2), "plain": plain, "seconds": round(seconds, 1)}


def main() -> None:
    """Print a line of JSON a template."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--tokenizer")
    parser.add_argument("--templates", type=Path)
    options = parser.parse_args()
    conversations = read_corpus(options.corpus, "esconv") if options.corpus else load_corpus("starter").train
    if options.tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    else:
        tokenizer = train_tokenizer(conversations[:200], 8192)
    families = dict(FAMILIES)
    if options.templates:
        families = {file.stem: file.read_text(encoding="utf-8") for file in sorted(options.templates.glob("*.jinja"))}
    for name, template in families.items():
        tokenizer.chat_template = template
        try:
            print(json.dumps({"template": name, **measure(tokenizer, conversations)}), flush=True)
        except TemplateError as error:
            print(json.dumps({"template": name, "refused": str(error)}), flush=True)


if __name__ == "__main__":
    main()
