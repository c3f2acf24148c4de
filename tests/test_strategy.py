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


def test_extes_maps_fifteen_labels_onto_all_eight_of_cso() -> None:
    assert len(EXTES_TO_CSO) == 15
    assert set(EXTES_TO_CSO.values()) == set(CSO.labels)
    assert "Others" not in EXTES_TO_CSO


def test_failed_esconv_s_names_are_no_labels_and_lead_to_labels() -> None:
    assert set(FAILED_ESCONV_TO_ESCONV.values()) < set(ESCONV.labels)
    assert not any(ESCONV.match(alias) for alias in FAILED_ESCONV_TO_ESCONV)
