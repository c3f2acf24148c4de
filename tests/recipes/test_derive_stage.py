"""Stage ``derive``: role dialogues of every part in its folder, its faults as events, one sentence for bad keys."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.conversation import read_conversations, write_conversations
from esckit.corpora.splits import origin_of
from esckit.errors import EsckitError, RecipeError
from esckit.recipes.check import check
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages.derive import FILES
from tests.mining.derivation.talks import question, talk, tree

RECIPE: Final = """
format: 1
title: derived
corpus: {name: starter}
stages:
  - {stage: derive, name: roles}
  - {stage: report, name: page}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "derived.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def derived(path: Path, *settings: str, **how: Any) -> RunFolder:
    return run(load_recipe(str(path / "derived.yaml"), settings), path / "run", **how)


def events(folder: Path) -> dict[str, int]:
    rows = map(json.loads, (folder / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["event"]: row["count"] for row in rows if row["stage"] == "roles"}


def test_every_part_is_derived_and_no_source_is_in_two(path: Path) -> None:
    finished = derived(path, "roles.roles=3")
    parts = {part: read_conversations(path / "run/roles" / name) for part, name in FILES.items()}
    for part, trees in parts.items():
        own = {tree.id for tree in getattr(finished.corpus, part)}
        assert {origin_of(tree) for tree in trees} <= own
        assert len(trees) == 3 * len({origin_of(tree) for tree in trees}) > 0
    facts = finished.facts("roles")
    assert facts["dialogues"] == sum(map(len, parts.values())) == facts["versions"] == 3 * facts["sources"]
    left = sum(map(len, finished.corpus.parts.values())) - facts["sources"]
    assert events(path / "run") == {"no source: danger": left}
    before = {name: (path / "run/roles" / name).read_bytes() for name in FILES.values()}
    derived(path, "roles.roles=3")
    derived(path, "roles.roles=3", fresh=True)
    assert {name: (path / "run/roles" / name).read_bytes() for name in before} == before


def test_what_is_left_out_is_an_event_with_its_step(path: Path) -> None:
    derived(path, "roles.filters={fewest: 10, length_ratio: 1.2}")
    counted = events(path / "run")
    assert counted["left out, experiences: length ratio"] > 0
    assert (
        sum(n for name, n in counted.items() if name.startswith("left out"))
        + len([tree for name in FILES.values() for tree in read_conversations(path / "run/roles" / name)])
        == json.loads((path / "run/stages/roles.json").read_text("utf-8"))["facts"]["sources"]
    )


def test_questions_without_strategies_are_a_corpus_for_it(path: Path) -> None:
    trees = [question(f"What about number {n}?\nIt is far from me.", name=f"q-{n}") for n in range(10)]
    write_conversations(path / "questions.jsonl", trees)
    corpus = "corpus={name: tree, file: questions.jsonl, split: '8:1:1'}"
    assert "8 dialogues" in "\n".join(check(load_recipe(str(path / "derived.yaml"), [corpus])))
    finished = derived(path, corpus)
    assert finished.taxonomy == "esconv"
    assert [len(read_conversations(path / "run/roles" / name)) for name in FILES.values()] == [8, 1, 1]


def test_its_result_depends_on_the_bank_s_texts_and_not_on_its_place(path: Path) -> None:
    from esckit.roles.bank import read_bank, save_bank

    save_bank(read_bank(), path / "here")
    save_bank(read_bank(), path / "there")
    derived(path, "roles.bank=here")
    derived(path, "roles.bank=there")
    role = next(iter(sorted((path / "there").glob("*.yaml"))))
    role.write_text(role.read_text("utf-8").replace("style: ", "style: Slowly. ", 1), "utf-8")
    with pytest.raises(EsckitError, match=r"stage 'roles' .* --fresh"):
        derived(path, "roles.bank=there")


def test_perplexity_is_the_backbone_s_where_no_model_is_named(path: Path) -> None:
    from tests.tiny import save_base

    save_base(path / "base")
    limit = "roles.filters={perplexity: {most: 1}}"
    finished = derived(path, limit, "roles.dialogues=2", "model={path: base}")
    assert events(path / "run")["left out, end: perplexity"] == finished.facts("roles")["versions"] > 0
    with pytest.raises(EsckitError, match="the recipe has no backbone"):
        run(load_recipe(str(path / "derived.yaml"), [limit]), path / "other")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("roles.roles=[nobody]", "has no role 'nobody'"),
        ("roles.roles=40", "40 roles are asked for"),
        ("roles.language=fr", "no source is left to derive from"),
        ("roles.bank=nowhere", "nowhere"),
        ("roles.derived_by=model", "set deriver.model"),
        ("roles.deriver={model: nothing-here}", "set derived_by to model"),
        ("roles.steps=[style, style]", "in this order"),
        ("roles.filters={perplexity: {model: nothing-here, most: 9}}", "nothing-here"),
    ],
)
def test_bad_keys_get_one_sentence_before_anything_is_written(path: Path, setting: str, sentence: str) -> None:
    with pytest.raises((EsckitError, RecipeError), match=sentence.replace("(", r"\(")) as told:
        derived(path, setting)
    assert "\n" not in str(told.value)
    assert not (path / "run").exists()


def test_a_dialogue_in_another_language_is_refused_before_the_run(path: Path) -> None:
    write_conversations(path / "talks.jsonl", [tree(talk(), "fr", "fr-1")])
    with pytest.raises(EsckitError, match="no rules of derivation in 'fr'"):
        derived(path, "corpus={name: tree, train: talks.jsonl}")
