"""What is exported is what esckit trains on: TRL takes it as it is, and its log-probabilities are ours."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from esckit.conversation import Conversation, Preference, Turn
from esckit.errors import CorpusError
from esckit.files import write_jsonl
from esckit.language_models.token_tree import build_tries, collate, target_log_probabilities
from esckit.mining.export import (
    TRAINERS,
    Past,
    dataset_info,
    export_judged,
    export_pairs,
    export_replies,
    guess_part,
    to_predictions,
)
from esckit.mining.pairs import Pair, pairs_of
from esckit.rendering import Example, Layout, Part, Renderer, past_strategies
from esckit.strategy import ESCONV
from tests.mining.grown import dialogue, grown, prefer
from tests.tiny import CHATML_DEFAULT, POSITIONS, tiny_model, tokenizer_with

PARTS: Final[tuple[Part, ...]] = ("planner", "generator", "coupled")
NO_LINE_END: Final = "<|im_end|>' }}{%- endif %}{%- endfor %}".join(
    CHATML_DEFAULT.rsplit("<|im_end|>\n' }}{%- endif %}{%- endfor %}", 1)
)
"""A template that writes nothing after the end-of-turn token, as Llama's."""


Rows = list[dict[str, Any]]


def trl(pairs: Sequence[Pair], part: Part, past: Past, layout: Layout = "shared-prefix") -> Rows:
    return [TRAINERS["trl"](row) for row in export_pairs(pairs, part, past, layout)]


def trl_kto(pairs: Sequence[Pair], part: Part, past: Past) -> Rows:
    return [TRAINERS["trl"](row) for row in export_judged(pairs, part, past)]


def test_a_pair_in_full() -> None:
    (row,) = trl(pairs_of([prefer(dialogue(), "5", "Others", "Well. ")], "coupled"), "coupled", "gold")
    system = row["prompt"].pop(0)
    assert system["role"] == "system"
    assert all(label in system["content"] for label in ESCONV.labels)
    assert row == {
        "prompt": [
            {"role": "user", "content": "I failed my exam.\nAgain."},
            {"role": "assistant", "content": "[Reflection of feelings] That must hurt."},
            {"role": "user", "content": " "},
            {"role": "assistant", "content": "[Question] What happened?"},
            {"role": "user", "content": "I was ill that day."},
        ],
        "chosen": [{"role": "assistant", "content": "[Providing Suggestions] You could ask for another date."}],
        "rejected": [{"role": "assistant", "content": "[Others] Well."}],
    }


def test_hidden_past_strategies_are_left_out_of_the_history_alone() -> None:
    (row,) = trl(pairs_of([prefer(dialogue(), "5", None, "Well.")], "generator"), "generator", "hidden")
    assert [message["content"] for message in row["prompt"][2::2]] == ["That must hurt.", "What happened?"]
    assert row["rejected"][0]["content"] == "[Providing Suggestions] Well."


def test_a_planner_s_sides_are_labels() -> None:
    rows = trl(pairs_of([grown("planner")], "planner"), "planner", "hidden")
    assert [row["rejected"][0]["content"] for row in rows] == ["[Others]", "[Information]", "[Question]"]
    assert {row["chosen"][0]["content"] for row in rows} == {"[Reflection of feelings]", "[Providing Suggestions]"}


def test_kto_names_every_reply_once_and_says_which_are_wanted() -> None:
    twins = [grown("generator", "a"), grown("generator", "b")]  # the same replies in another dialogue are other replies
    rows = trl_kto(pairs_of(twins, "generator"), "generator", "hidden")
    replies = [(row["completion"][0]["content"].partition("] ")[2], row["label"]) for row in rows]
    assert (
        replies
        == [
            ("That must hurt.", True),
            ("Well.", False),
            ("You could ask for another date.", True),
            ("Try it again, then.", False),
            ("Ask them!", False),
        ]
        * 2
    )
    assert rows[0]["prompt"] == trl(pairs_of(twins, "generator"), "generator", "hidden")[0]["prompt"]


def test_sides_are_predictions_of_the_turn_that_was_recorded_there() -> None:
    chosen, rejected = to_predictions(pairs_of([grown("coupled")], "coupled"))
    assert [(row.turn_id, row.predicted_strategy, row.predicted_text) for row in chosen] == [
        ("2", "Reflection of feelings", "That must hurt."),
        ("5", "Providing Suggestions", "You could ask for another date."),
    ]
    assert [(row.turn_id, row.predicted_strategy, row.predicted_text) for row in rejected] == [
        ("2", "Others", "Well."),
        ("5", "Providing Suggestions", "Try it again, then."),  # of the two pairs of turn 5 the first
    ]
    assert [row.gold_text for row in chosen] == [row.gold_text for row in rejected]
    assert [row.position for row in rejected] == [[3, 6], [6, 6]]


def test_gold_is_what_was_recorded_and_not_what_was_chosen() -> None:
    tree = prefer(prefer(dialogue(), "5", None, "Well."), "5", None, "Fine.")
    better, worse = (turn.id for turn in tree.turns[-2:])
    tree = replace(tree, preferences=[Preference(better, worse, "response")])
    ((chosen,), (rejected,)) = to_predictions(pairs_of([tree], "generator"))
    assert {chosen.gold_text, rejected.gold_text} == {"You could ask for another date."}
    assert (chosen.predicted_text, rejected.predicted_text) == ("Well.", "Fine.")


def test_a_planner_s_pairs_have_no_replies() -> None:
    with pytest.raises(CorpusError, match="has a strategy and no reply: take pairs of the generator"):
        to_predictions(pairs_of([grown("planner")], "planner"))


@pytest.mark.parametrize("part", PARTS)
def test_the_part_is_seen_from_the_preferences(part: Part) -> None:
    assert guess_part([dialogue("plain"), grown(part)]) == part


def test_no_part_where_there_is_none_or_more_than_one() -> None:
    with pytest.raises(CorpusError, match="no preference in these trees"):
        guess_part([dialogue()])
    with pytest.raises(CorpusError, match=r"several parts \(response, strategy\): name the part"):
        guess_part([grown("planner", "a"), grown("generator", "b")])


def test_a_dialogue_without_taxonomy_is_refused() -> None:
    turns = [Turn("0", None, "supporter", text, source=text) for text in ("Hello.", "Hi.")]
    tree = Conversation("plain", [turns[0], replace(turns[1], id="1")], taxonomy=None)
    pairs = pairs_of([tree.grow((), [Preference("0", "1", "response")])], "generator")
    with pytest.raises(CorpusError, match="'plain' has no taxonomy"):
        trl(pairs, "generator", "gold")


# ------------------------------------------------------------------------------------------------------- the trainers

HISTORY = [
    {"role": "user", "content": "I failed my exam.\nAgain."},
    {"role": "assistant", "content": "That must hurt."},
    {"role": "user", "content": " "},
    {"role": "assistant", "content": "What happened?"},
    {"role": "user", "content": "I was ill that day."},
]


def test_layout_paper_names_the_strategy_in_the_generator_s_system_text() -> None:
    pairs = pairs_of([prefer(dialogue(), "5", None, "Well.")], "generator")
    (row,) = trl(pairs, "generator", "hidden", "paper")
    assert "Providing Suggestions" in row["prompt"][0]["content"]
    assert "Information" not in row["prompt"][0]["content"]
    assert row["prompt"][1:] == HISTORY
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (
        "You could ask for another date.",
        "Well.",
    )


def test_layout_paper_shows_the_planner_lines_and_lets_it_say_a_bare_name() -> None:
    row = list(export_replies([dialogue()], "planner", "hidden", "paper"))[-1]
    assert [message["role"] for message in row.prompt] == ["system", "user"]
    assert row.prompt[1]["content"] == (
        "seeker: I failed my exam.\nAgain.\nsupporter: That must hurt.\nseeker:\nsupporter: What happened?\n"
        "seeker: I was ill that day."
    )
    assert row.reply == "Providing Suggestions"


def test_every_labelled_reply_is_a_row_of_sft() -> None:
    rows = list(export_replies([dialogue()], "coupled", "gold"))
    assert [row.reply for row in rows] == [
        "[Reflection of feelings] That must hurt.",
        "[Question] What happened?",
        "[Providing Suggestions] You could ask for another date.",
    ]
    assert [message["content"] for message in rows[-1].prompt[2::2]] == [row.reply for row in rows[:-1]]
    assert TRAINERS["trl"](rows[0]) == {
        "prompt": rows[0].prompt,
        "completion": [{"role": "assistant", "content": rows[0].reply}],
    }


def test_llamafactory_s_rows_and_how_they_are_registered() -> None:
    pairs = pairs_of([prefer(dialogue(), "5", None, "Well.")], "generator")
    (pair,) = (TRAINERS["llamafactory"](row) for row in export_pairs(pairs, "generator", "hidden", "paper"))
    assert pair["conversations"] == [
        {"from": {"user": "human", "assistant": "gpt"}[each["role"]], "value": each["content"]} for each in HISTORY
    ]
    assert pair["rejected"] == {"from": "gpt", "value": "Well."}
    assert pair["chosen"] == {"from": "gpt", "value": "You could ask for another date."}
    columns = {"messages": "conversations", "system": "system", "chosen": "chosen", "rejected": "rejected"}
    info = {"file_name": "x.jsonl", "formatting": "sharegpt", "ranking": True, "columns": columns}
    assert dataset_info("x.jsonl", pair) == {"esckit": info}
    wanted = [TRAINERS["llamafactory"](row) for row in export_judged(pairs, "generator", "hidden", "paper")]
    assert [(row["conversations"][-1]["value"], row["kto_tag"]) for row in wanted] == [
        ("You could ask for another date.", True),
        ("Well.", False),
    ]
    assert dataset_info("x", wanted[0])["esckit"]["columns"]["kto_tag"] == "kto_tag"
    sft = TRAINERS["llamafactory"](next(export_replies([dialogue()], "generator", "hidden", "paper")))
    assert sorted(sft) == ["conversations", "system"]
    roles = [each["from"] for each in sft["conversations"]]
    assert roles == ["human", "gpt"] * (len(roles) // 2)


def test_ms_swift_s_rows() -> None:
    pairs = pairs_of([prefer(dialogue(), "5", None, "Well.")], "generator")
    (pair,) = (TRAINERS["ms-swift"](row) for row in export_pairs(pairs, "generator", "hidden", "paper"))
    reply = {"role": "assistant", "content": "You could ask for another date."}
    assert pair["messages"][1:] == [*HISTORY, reply]
    assert (pair["rejected_response"], sorted(pair)) == ("Well.", ["messages", "rejected_response"])
    wanted = [TRAINERS["ms-swift"](row) for row in export_judged(pairs, "generator", "hidden", "paper")]
    assert [row["label"] for row in wanted] == [True, False]
    sft = TRAINERS["ms-swift"](next(export_replies([dialogue()], "generator", "hidden", "paper")))
    assert list(sft) == ["messages"]


# ----------------------------------------------------------------------------------------------------------------- TRL


def written(rows: Sequence[dict[str, Any]], folder: Path) -> Any:
    """The rows as `datasets` reads them from a file."""
    from datasets import load_dataset

    write_jsonl(folder / "pairs.jsonl", rows)
    return load_dataset("json", data_files=str(folder / "pairs.jsonl"), cache_dir=str(folder / "cache"), split="train")


def arguments(kind: Any, folder: Path) -> Any:
    return kind(
        output_dir=str(folder),
        per_device_train_batch_size=3,
        max_steps=1,
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )


def ours(model: Any, renderer: Renderer, pair: Pair, part: Part, past: Past, end: tuple[int, ...]) -> list[float]:
    """Log-probabilities of both sides, with ``end`` scored after them."""
    sides = renderer.pair(pair.conversation, pair.preference, part, past_strategies(pair.conversation, past))
    examples = [Example(side.turn_id, side.context, side.given, side.scored + end) for side in sides]
    with torch.no_grad():
        found: list[float] = target_log_probabilities(model, collate(build_tries(examples))).tolist()
    return found


def theirs(model: Any, dataset: Any, tokenizer: Any, folder: Path) -> list[list[float]]:
    """Log-probabilities of both sides as TRL's trainer tokenises and masks them, after it has made a step."""
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=model,
        ref_model=tiny_model(),
        args=arguments(DPOConfig, folder),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    chosen, rejected = trainer.compute_ref_log_probs(trainer.ref_model, batch)
    found: list[list[float]] = torch.stack([chosen, rejected], 1).tolist()
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.state.log_history[-1]["train_loss"] == pytest.approx(0.6931, abs=1e-3)
    return found


@pytest.mark.parametrize(
    ("part", "past", "template"),
    [
        ("planner", "hidden", "chatml"),
        ("generator", "hidden", NO_LINE_END),
        ("coupled", "gold", "chatml"),
        ("coupled", "hidden", NO_LINE_END),
    ],
    ids=["planner", "generator", "coupled", "coupled-no-line-end"],
)
def test_dpo_trainer_takes_the_file_and_finds_our_log_probabilities(
    part: Part, past: Past, template: str, tmp_path: Path
) -> None:
    tokenizer = tokenizer_with(template)
    renderer = Renderer(tokenizer, ESCONV, max_context=POSITIONS)
    pairs = pairs_of([grown(part)], part)
    model = tiny_model()
    line_end = renderer.template.encoder.encode("\n") if template == "chatml" else ()
    end = {"planner": (renderer.end_of_turn, *line_end), "generator": (), "coupled": line_end}[part]
    wanted = [ours(model, renderer, pair, part, past, end) for pair in pairs]
    found = theirs(model, written(trl(pairs, part, past), tmp_path), tokenizer, tmp_path / "trl")
    if part == "generator":  # TRL scores the label too, the same one on both sides: it cancels
        wanted, found = ([[chosen - rejected] for chosen, rejected in rows] for rows in (wanted, found))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), atol=1e-3, rtol=1e-5)


def test_kto_trainer_takes_the_file(tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    trainer = KTOTrainer(
        model=tiny_model(),
        ref_model=tiny_model(),
        args=arguments(KTOConfig, tmp_path / "trl"),
        train_dataset=written(trl_kto(pairs_of([grown("coupled")], "coupled"), "coupled", "gold"), tmp_path),
        processing_class=tokenizer_with("chatml"),
    )
    assert sorted(trainer.train_dataset["label"]) == [False] * 3 + [True] * 2
    trainer.train()
    assert trainer.state.global_step == 1
