"""Chat templates of every kind: what stands before an answer, what is an answer, and what is refused in a sentence."""

from typing import Any, Final, NamedTuple

import pytest

from esckit.conversation import Conversation
from esckit.conversation.turn_rule import reply_text, to_messages
from esckit.corpora import load_corpus
from esckit.errors import TemplateError
from esckit.language_models.token_tree import TokenTrie
from esckit.rendering import ChatTemplate, Message, Renderer, supporter_turns
from esckit.strategy import ESCONV
from tests.field import field
from tests.tiny import CHATML_DEFAULT, HEADERS, TEMPLATES, strategies_shown, talk, tokenizer_with

WAY_OUT: Final = "put a plain one into chat_template.jinja in the model's folder, or choose another model."
LAST_USER: Final = (
    "{%- set place = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set place.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
)


class Family(NamedTuple):
    """A template, its special tokens, and how it writes a reply that is the last and one that is not."""

    template: str
    tokens: dict[str, Any]
    last: str
    earlier: str


FAMILIES: Final[dict[str, Family]] = {
    "thoughts are cut off history": Family(
        LAST_USER + "{%- for m in messages -%}{%- set said = m.content -%}"
        "{%- if m.role == 'assistant' and loop.index0 > place.last -%}"
        "{%- set said = '<think>\n\n</think>\n\n' + said -%}{%- endif -%}"
        "{{- '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- if enable_thinking is false -%}"
        "{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{%- endif -%}",
        {},
        "<|im_start|>assistant\n<think>\n\n</think>\n\n{}<|im_end|>",
        "<|im_start|>assistant\n{}<|im_end|>\n",
    ),
    "the prompt opens a thought that history never has": Family(
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' + m.content.split('</think>')[-1] + '<|im_end|>\n'"
        "-}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n' -}}{%- endif -%}",
        {},
        "<|im_start|>assistant\n<think>\n\n</think>\n\n{}<|im_end|>",
        "<|im_start|>assistant\n{}<|im_end|>\n",
    ),
    "a channel, and an end of its own for the last": Family(
        "{%- for m in messages -%}{{- '<|start|>' + m.role + ('<|channel|>final' if m.role == 'assistant' else '') +"
        "'<|message|>' + m.content -}}{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' -}}"
        "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}",
        {"extra_special_tokens": ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]},
        "<|start|>assistant<|channel|>final<|message|>{}<|return|>",
        "<|start|>assistant<|channel|>final<|message|>{}<|end|>",
    ),
    "the end of text after all": Family(
        "{%- for m in messages -%}{{- '<|' + m.role + '|>\n' + m.content + '<|end|>\n' -}}{%- endfor -%}"
        "{{- '<|assistant|>\n' if add_generation_prompt else '<|endoftext|>' -}}",
        {"extra_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]},
        "<|assistant|>\n{}<|end|>",
        "<|assistant|>\n{}<|end|>\n",
    ),
    "the next header is always written": Family(
        "{%- for m in messages -%}{{- '<|turn|>' + m.role + '\n' + m.content + '<|end|>' -}}{%- endfor -%}"
        "{{- '<|turn|>assistant\n' -}}",
        {"extra_special_tokens": ["<|turn|>", "<|end|>"]},
        "<|turn|>assistant\n{}<|end|>",
        "<|turn|>assistant\n{}<|end|>",
    ),
    "the header of an answer belongs to the answer": Family(
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}{%- endfor -%}",
        {},
        "<|im_start|>assistant\n{}<|im_end|>",
        "<|im_start|>assistant\n{}<|im_end|>\n",
    ),
    "messages are numbered": Family(
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + ' ' ~ loop.index0 ~ '\n' + m.content + '<|im_end|>\n'"
        "-}}{%- endfor -%}{%- if add_generation_prompt -%}"
        "{{- '<|im_start|>assistant ' ~ messages | length ~ '\n' -}}{%- endif -%}",
        {},
        "<|im_start|>assistant 4\n{}<|im_end|>",
        "<|im_start|>assistant 2\n{}<|im_end|>\n",
    ),
    "ends in letters": Family(
        "{%- for m in messages -%}{{- '### ' + m.role + '\n' + m.content + '\n\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '### assistant\n' -}}{%- endif -%}",
        {"eos_token": "<|endoftext|>"},
        "### assistant\n{}<|endoftext|>",
        "### assistant\n{}\n\n",
    ),
    "contents are lists of parts": Family(
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}{%- for part in m.content -%}"
        "{%- if part.type == 'text' -%}{{- part.text -}}{%- endif -%}{%- endfor -%}{{- '<|im_end|>\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}",
        {},
        "<|im_start|>assistant\n{}<|im_end|>",
        "<|im_start|>assistant\n{}<|im_end|>\n",
    ),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_reply_is_trained_as_the_last_and_read_as_the_template_writes_earlier_ones(family: Family) -> None:
    renderer = Renderer(tokenizer_with(family.template, family.tokens), ESCONV, max_context=100_000)
    conversation = talk(
        ("seeker", "I failed."),
        ("supporter", "At what?", "Question"),
        ("seeker", "At all."),
        ("supporter", "That is hard.", "Others"),
    )
    shown = {"1": "Question", "3": "Others"}
    example = renderer.example(conversation, conversation.turn("3"), "coupled", shown)
    read, said = renderer.tokenizer.decode(example.context), renderer.tokenizer.decode(example.scored)
    assert (read + said).endswith(family.last.format("[Others] That is hard."))
    assert said.startswith("[Others] That is hard.")
    assert family.earlier.format("[Question] At what?") in read
    generator = renderer.example(conversation, conversation.turn("3"), "generator", shown)
    assert renderer.prompt(conversation, conversation.turn("3"), "generator", shown, 9) == (
        *generator.context,
        *generator.given,
    )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_the_prompt_of_a_chat_model_is_the_template_asked_for_an_answer(family: Family) -> None:
    tokenizer = tokenizer_with(family.template, family.tokens)
    chat = [Message("system", "Be kind."), Message("user", " Hm. "), Message("assistant", "Yes?"), Message("user", "I")]
    parts = "for part in m.content" in family.template
    told = [{"role": m.role, "content": [{"type": "text", "text": m.content}] if parts else m.content} for m in chat]
    wanted = tokenizer.apply_chat_template(told, return_dict=False, add_generation_prompt=True, enable_thinking=False)
    assert ChatTemplate(tokenizer).prompt_ids(chat) == tuple(wanted)


def test_a_thought_is_closed_where_the_prompt_opens_one() -> None:
    leads = {name: ChatTemplate(tokenizer_with(*family[:2])).lead for name, family in FAMILIES.items()}
    closed = [name for name, lead in leads.items() if lead == "\n</think>\n\n"]
    assert closed == ["the prompt opens a thought that history never has"]


def sharing(renderer: Renderer, conversation: Conversation) -> float:
    """Tokens of a row a turn for each token of the trie."""
    shown = strategies_shown(conversation, "gold")
    examples = renderer.examples(conversation, "coupled", shown)
    rows = sum(len(e.context) + len(e.given) + len(e.scored) for e in examples)
    return rows / len(TokenTrie.merge(examples))


def test_prefixes_that_agree_are_read_once() -> None:
    """A thought at the last reply costs the reply once more, never the history."""
    (conversation,) = load_corpus("starter").valid[:1]
    turns = len(supporter_turns(conversation))
    plain = Renderer(tokenizer_with("chatml"), ESCONV, max_context=100_000)
    trie = TokenTrie.merge(plain.examples(conversation, "coupled", strategies_shown(conversation, "gold")))
    whole = plain.context(conversation.trunk, strategies_shown(conversation, "gold"), 0).ids
    assert len(trie) <= len(whole), "ChatML: a dialogue is one path"
    cut = Renderer(tokenizer_with(FAMILIES["thoughts are cut off history"].template), ESCONV, max_context=100_000)
    assert sharing(plain, conversation) > 4
    assert 1.5 < sharing(cut, conversation) < sharing(plain, conversation)
    assert turns > 4


# -------------------------------------------------------------------------------------------------------- the fields'

TOKENS: Final[dict[str, dict[str, Any]]] = {
    "05-always-asks": {"extra_special_tokens": ["<|turn|>", "<|end_turn|>", "<|user|>", "<|bot|>", "<|system|>"]},
    "05-end-of-text-after-all": {"extra_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]},
    "05-last-reply-ends-otherwise": FAMILIES["a channel, and an end of its own for the last"].tokens,
    "05-thought-opened": {},
    "05-thoughts-cut": {},
    "17-system-in-last-user": {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": ["[INST]", "[/INST]"]},
    "26-tools-defined": {},
    "26-tools-none": {},
    "ok-merging": {},
    "ok-strict-alternation": {"bos_token": "<bos>", "extra_special_tokens": ["<start_of_turn>", "<end_of_turn>"]},
    "ok-system-left-out": {},
}


@pytest.mark.parametrize("name", TOKENS)
def test_templates_of_the_field_are_what_the_tokenizer_writes(name: str) -> None:
    tokenizer = tokenizer_with(field(f"templates/{name}.jinja").read_text(encoding="utf-8"), TOKENS[name])
    renderer = Renderer(tokenizer, ESCONV, max_context=100_000)
    merged = name in ("17-system-in-last-user", "ok-strict-alternation", "ok-system-left-out")
    tools: list[Any] | None = [] if name.startswith("26") else None
    for conversation in load_corpus("starter").valid[:3]:
        shown = strategies_shown(conversation, "gold")
        for turn in supporter_turns(conversation):
            system = renderer.system("coupled", "Question")
            history = to_messages(conversation.path(turn.parent), shown)
            if merged:
                history[0] = Message("user", f"{system.content}\n\n{history[0].content}")
            said = Message("assistant", reply_text(turn.strategy, turn.text or ""))
            chat = [*([] if merged else [system]), *history, said]
            told = [{"role": m.role, "content": m.content} for m in chat]
            whole = tokenizer.apply_chat_template(told, return_dict=False, enable_thinking=False, tools=tools)
            example = renderer.example(conversation, turn, "coupled", shown)
            ids = [*example.context, *example.scored]
            assert ids == whole[: len(ids)]
            asked = tokenizer.apply_chat_template(
                told[:-1], return_dict=False, enable_thinking=False, tools=tools, add_generation_prompt=True
            )
            assert [*example.context][: len(asked)] == asked
            assert len(example.context) - len(asked) == len(renderer.template.encoder.encode(renderer.template.lead))


def test_a_system_text_that_moves_stands_in_the_first_user_message() -> None:
    name = "17-system-in-last-user"
    tokenizer = tokenizer_with(field(f"templates/{name}.jinja").read_text(encoding="utf-8"), TOKENS[name])
    chat = [Message("system", "S"), Message("user", "u"), Message("assistant", "a {"), Message("user", "v")]
    ids = ChatTemplate(tokenizer).prompt_ids(chat)
    assert tokenizer.decode(ids) == "<s>[INST]S\n\nu[/INST]a {</s>[INST]v[/INST]"


# ------------------------------------------------------------------------------------------------------ roles and dates

REFUSING: Final = "{{% if message['role'] == '{}' %}}{{{{ raise_exception('no {} here') }}}}{{% endif %}}"
LOOP: Final = "{%- for message in messages %}"


def refuse(role: str) -> str:
    """The piece of a template that raises at a role."""
    return REFUSING.format(role, role)


MERGED: Final = {
    "refuses": CHATML_DEFAULT.replace(LOOP, LOOP + refuse("system")),
    "leaves out": "{% for message in messages if message.role != 'system' %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}",
    "puts it behind": "{% for message in messages if message.role != 'system' %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}",
}


@pytest.mark.parametrize("template", MERGED.values(), ids=MERGED.keys())
def test_without_a_system_role_its_text_stands_in_the_first_message(template: str) -> None:
    told = ChatTemplate(tokenizer_with(template)).prompt([Message("system", "Be kind."), Message("user", " Hm.")])
    assert "<|im_start|>user\nBe kind.\n\nHm.<|im_end|>" in told
    assert told.count("Be kind.") == 1


CLOCKS: Final = {
    "in words": ("{{ strftime_now('%d %B %Y') }}", "01 January 2025"),
    "by numbers": ("{{ strftime_now('%Y-%m-%d') }}", "2025-01-01"),
    "taken apart": ("{{ strftime_now('%Y-%m-%d').split('-')[0] }}", "2025"),
    "as Llama 3.1 asks": (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d') %}{% endif %}{{ date_string }}",
        "01 January 2025",
    ),
}


@pytest.mark.parametrize(("clock", "date"), CLOCKS.values(), ids=CLOCKS.keys())
def test_a_date_in_a_template_is_fixed_and_never_today(clock: str, date: str) -> None:
    template = ChatTemplate(tokenizer_with(clock + "{{ '\n' }}" + CHATML_DEFAULT))
    told = template.prompt([Message("system", "Be kind."), Message("user", "Hm.")])
    assert told.startswith(f"{date}\n<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHm.<|im_end|>\n")


def test_dates_of_headers_are_fixed_too() -> None:
    clock = HEADERS.replace("'26 Jul 2024'", "strftime_now('%d %b %Y')")
    for text in (HEADERS, clock):
        tokenizer = tokenizer_with(text, TEMPLATES["headers"][1])
        assert "Today Date: 01 January 2025" in ChatTemplate(tokenizer).prompt([Message("user", "Hm.")])


@pytest.mark.parametrize(
    "tools",
    ["{% for tool in tools %}{{ tool.name }}{% endfor %}", "{% if tools is defined %}{{ tools | length }}{% endif %}"],
)
def test_a_template_that_asks_for_tools_gets_an_empty_list(tools: str) -> None:
    assert ChatTemplate(tokenizer_with(tools + CHATML_DEFAULT)).prompt([Message("user", "Hm.")])


def test_tools_that_are_not_there_are_not_announced() -> None:
    asks = "{% if tools is not none %}{{ 'You have tools.' }}{% endif %}"
    assert "tools" not in ChatTemplate(tokenizer_with(asks + CHATML_DEFAULT)).prompt([Message("user", "Hm.")])


# ------------------------------------------------------------------------------------------------------------ refusals

PLAIN: Final = "{% for message in messages %}{{ message['role'] + '\n' + CONTENT + '<|im_end|>\n' }}{% endfor %}"
DROPS: Final = f"the chat template drops, repeats or rewrites messages: {WAY_OUT}"
REFUSED: Final = {
    "drops the assistant": (
        PLAIN.replace("in messages", "in messages if message.role != 'assistant'").replace(
            "CONTENT", "message.content"
        ),
        DROPS,
    ),
    "keeps the last four": (
        PLAIN.replace("in messages", "in messages[:1] + messages[-4:]").replace("CONTENT", "message.content"),
        DROPS,
    ),
    "changes the case": (PLAIN.replace("CONTENT", "message.content | lower"), DROPS),
    "writes all twice": (PLAIN.replace("CONTENT", "message.content + message.content"), DROPS),
    "turns the order round": (
        PLAIN.replace("in messages", "in messages | reverse").replace("CONTENT", "message.content"),
        DROPS,
    ),
    "drops the answer": (
        PLAIN.replace("CONTENT", "(message.content if message.role == 'user' or not loop.last else '')"),
        f"the chat template drops or rewrites what the assistant says: {WAY_OUT}",
    ),
    "one question": (
        PLAIN.replace("CONTENT", "message.content")
        + "{% if messages | length > 2 %}{{ raise_exception('one question at a time') }}{% endif %}",
        f"the chat template refuses a chat (one question at a time): {WAY_OUT}",
    ),
    "a sum of words and numbers": (
        PLAIN.replace("CONTENT", "message.content + 1"),
        f'the chat template refuses a chat (can only concatenate str (not "int") to str): {WAY_OUT}',
    ),
    "an attribute of nothing": (
        PLAIN.replace("CONTENT", "message.content.text.said"),
        f"the chat template refuses a chat ('str object' has no attribute 'text'): {WAY_OUT}",
    ),
    "a division by nothing": (
        PLAIN.replace("CONTENT", "message.content ~ 1 / 0"),
        f"the chat template refuses a chat (division by zero): {WAY_OUT}",
    ),
    "no template at all": (
        PLAIN.replace("CONTENT", "message.content") + "{% endfor %}",
        f"the chat template refuses a chat (Encountered unknown tag 'endfor'): {WAY_OUT}",
    ),
    "no blank message": (
        PLAIN.replace("CONTENT", "(message.content if message.content.strip() else raise_exception('say something'))"),
        f"the chat template refuses a chat (say something): {WAY_OUT}",
    ),
}


@pytest.mark.parametrize(("template", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_template_that_cannot_be_used_is_refused_in_a_sentence(template: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as error:
        Renderer(tokenizer_with(template), ESCONV, max_context=2048)
    assert str(error.value) == sentence


@pytest.mark.parametrize("role", ["assistant", "user"])
def test_a_template_that_refuses_a_role_is_refused_in_a_sentence(role: str) -> None:
    with pytest.raises(TemplateError) as error:
        Renderer(tokenizer_with(CHATML_DEFAULT.replace(LOOP, LOOP + refuse(role))), ESCONV, max_context=2048)
    assert str(error.value) == f"the chat template refuses a chat (no {role} here): {WAY_OUT}"


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = None
    with pytest.raises(TemplateError) as error:
        Renderer(tokenizer, ESCONV, max_context=2048)
    assert str(error.value) == f"the tokenizer has no chat template: use a chat model; for a base model {WAY_OUT}"


def test_a_reply_that_nothing_ends_is_refused() -> None:
    tokenizer = tokenizer_with(FAMILIES["ends in letters"].template)
    tokenizer.eos_token = None
    with pytest.raises(TemplateError, match=r"has a token that ends a reply: .* or give the tokenizer an eos_token"):
        Renderer(tokenizer, ESCONV, max_context=2048)
