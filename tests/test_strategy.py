"""The taxonomies are closed, ordered, and described."""

import pytest

from esckit.strategy import CSO, ESCONV, EXTES_TO_CSO, FAILED_ESCONV_TO_ESCONV, TAXONOMIES, Taxonomy


def test_the_order_of_esconv_labels_is_fixed() -> None:
    assert ESCONV.labels == (
        "Question",
        "Restatement or Paraphrasing",
        "Reflection of feelings",
        "Self-disclosure",
        "Affirmation and Reassurance",
        "Providing Suggestions",
        "Information",
        "Others",
    )


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=TAXONOMIES.keys())
def test_labels_and_abbreviations_are_unique_and_every_strategy_is_defined(taxonomy: Taxonomy) -> None:
    assert TAXONOMIES[taxonomy.name] is taxonomy
    size = {"esconv": 8, "cso": 8, "annomi": 4}[taxonomy.name]
    assert len({label.casefold() for label in taxonomy.labels}) == len(taxonomy.strategies) == size
    assert len(set(taxonomy.abbreviations.values())) == size
    assert list(taxonomy.abbreviations) == list(taxonomy.labels)
    assert all(strategy.definition.endswith(".") for strategy in taxonomy.strategies)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Question", "Question"),
        (" reflection OF Feelings\n", "Reflection of feelings"),
        ("Questions", None),
        ("[Question]", None),
        ("", None),
        (None, None),
    ],
)
def test_a_label_matches_trimmed_and_in_any_case_and_nothing_else(text: str | None, label: str | None) -> None:
    assert ESCONV.match(text) == label


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=TAXONOMIES.keys())
def test_every_label_has_a_chinese_name_and_definition_and_is_read_back_from_it(taxonomy: Taxonomy) -> None:
    names = [taxonomy.name_in(label, "zh") for label in taxonomy.labels]
    assert len(set(names)) == len(names)
    every = [name for strategy in taxonomy.strategies for name in strategy.chinese]
    assert len(set(every)) == len(every), "no name may mean two labels"
    for strategy in taxonomy.strategies:
        label, shown = strategy.label, taxonomy.shown_in(strategy.label, "zh")
        assert shown == f"{label}（{strategy.chinese[0]}）"
        for said in (
            *strategy.chinese,
            shown,
            shown.replace("（", " (").replace("）", ")"),
            f"{strategy.chinese[0]}（{label}）",
        ):
            assert taxonomy.match(f" {said}") == label
        assert taxonomy.definition_in(label, "zh").endswith("。")
        assert taxonomy.definition_in(label, "en") == strategy.definition
        assert {taxonomy.name_in(label, language) for language in ("en", "fr")} == {label}
    assert taxonomy.listed_in("en") == ", ".join(taxonomy.labels)
    assert taxonomy.listed_in("zh").startswith(f"{taxonomy.labels[0]}（{names[0]}）、")


def test_a_chinese_name_of_one_label_is_not_read_for_another() -> None:
    assert ESCONV.match("Question（复述）") is None
    assert (CSO.match("提供信息"), ESCONV.match("提供信息")) == ("Share Information", "Information")


def test_extes_maps_fifteen_labels_onto_all_eight_of_cso() -> None:
    assert len(EXTES_TO_CSO) == 15
    assert set(EXTES_TO_CSO.values()) == set(CSO.labels)
    assert "Others" not in EXTES_TO_CSO


def test_failed_esconv_s_names_are_no_labels_and_lead_to_labels() -> None:
    assert set(FAILED_ESCONV_TO_ESCONV.values()) < set(ESCONV.labels)
    assert not any(ESCONV.match(alias) for alias in FAILED_ESCONV_TO_ESCONV)
