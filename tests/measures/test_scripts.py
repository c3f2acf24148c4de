"""Scripts: what goes by characters, which figures are null in which, and which texts are not English."""

from typing import Any

import pytest

from esckit.measures import evaluate, read_predictions
from esckit.measures.scripts import is_foreign, share_of
from esckit.measures.text import choose_tokenizer, length_shares
from esckit.measures.text_figures import text_figures

from ..field import field

PAIRS = {  # two renderings of one thought in each
    "Japanese": ("眠れない夜はつらいですね。いつからですか。", "眠れない夜はつらいでしょう。"),
    "Thai": ("คุณคงเหนื่อยมากนะ", "คุณเหนื่อยมาก"),
    "Lao": ("ເຈົ້າຄົງເມື່ອຍຫຼາຍ", "ເຈົ້າເມື່ອຍ"),
    "Khmer": ("អ្នកប្រហែលជាហត់ណាស់", "អ្នកហត់ណាស់"),
    "Burmese": ("သင်အရမ်းပင်ပန်းနေပြီ", "သင်ပင်ပန်းနေပြီ"),
    "Tibetan": ("ཁྱེད་རང་ཐང་ཆད་འདུག", "ཁྱེད་ཐང་ཆད་འདུག"),
    "Chinese": ("这些夜晚一定很难熬吧。", "这些夜晚很难熬。"),
    "Arabic": ("يبدو أن ليلك طويل.", "ليلك طويل."),
    "Russian": ("Ночи были тяжёлыми.", "Тяжёлые ночи."),
    "Korean": ("밤마다 힘드셨군요.", "힘드셨군요."),
    "Telugu": ("రాత్రులు కష్టంగా ఉన్నాయి.", "రాత్రులు కష్టం."),
    "Greek": ("Οι νύχτες ήταν δύσκολες.", "Δύσκολες νύχτες."),
}
BLANKLESS = ("Japanese", "Thai", "Lao", "Khmer", "Burmese", "Tibetan", "Chinese")


@pytest.mark.parametrize("language", PAIRS)
def test_no_figure_is_0_because_a_tokenizer_finds_nothing(language: str) -> None:
    gold, predicted = ([text] for text in PAIRS[language])
    found = text_figures(gold, predicted, metrics=("text", "meteor"))
    by_characters = language in BLANKLESS
    assert (found.figures["tokenizer"] == "characters") == by_characters
    assert found.figures["rouge_score_l_utterance"] is None
    assert any(note.startswith("rouge_score_l_utterance is null") for note in found.notes)
    if by_characters:
        names = ("bleu1_utterance", "f1_utterance", "rouge_l_utterance", "meteor_utterance", "sacrebleu")
        assert all(found.figures[name] > 0.3 for name in names)
        assert found.figures["mean_tokens"] > 5
        wanted = "tok:zh" if language == "Chinese" else "tok:char"
        assert wanted in found.figures["sacrebleu_signature"]


def test_mixed_scripts_are_decided_by_share() -> None:
    assert choose_tokenizer(["眠れない夜 (stress)"]) == "nltk-words"
    assert choose_tokenizer(["眠れない夜はつらい (stress)"]) == "characters"
    mixed = text_figures(["眠れない夜 (stress)"], ["眠れない (stress)"])
    assert any("% of the letters are of a script without blanks" in note for note in mixed.notes)
    assert share_of("without blanks", ["12 ?!"]) == 0


def test_a_response_in_another_script_than_its_reference_is_told() -> None:
    found = text_figures(["You sound tired."], ["お疲れのようですね。"])
    assert any(note.startswith("Up to 100% of the letters are of a script without blanks") for note in found.notes)


def test_words_that_rouge_score_cuts_are_told() -> None:
    assert any("letters that are not ASCII" in note for note in text_figures(["Bạn có mệt không?"], ["Mệt à?"]).notes)
    assert not text_figures(["Are you tired?"], ["Tired?"]).notes


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("眠れない。つらい！いつから？", 3),
        ("هل نمت؟ لا بأس. أنا هنا.", 3),
        ("मैं यहाँ हूँ। क्या हुआ? बताइए।", 3),
        ("ပင်ပန်းလား။ နားပါ။ ပြောပါ။", 3),
        ("眠れない。", 1),
    ],
)
def test_ends_of_sentences(text: str, sentences: int) -> None:
    assert length_shares([text])["over_2_sentences_share"] == float(sentences > 2)


def test_thai_and_lao_end_no_sentence() -> None:
    found = evaluate_texts("Thai")
    assert found["over_40_words_share"] == 0
    assert found["over_2_sentences_share"] is found["long_response_share"] is None


def evaluate_texts(language: str) -> dict[str, Any]:
    from .rows import measured, row

    gold, predicted = PAIRS[language]
    rows = [row(None, None, gold_text=gold, predicted_text=predicted)]
    return dict(measured(rows, metrics=["text"]).text.to_json())


@pytest.mark.parametrize(
    ("texts", "foreign"),
    [
        (["I feel so tired, and you are the one that knows what it is."] * 20, False),
        (["Hola"], False),  # too little to tell
        (["Ich verstehe, dass du dich müde fühlst, weil es nachts so laut war."] * 20, True),
        (["Saya mengerti kamu merasa lelah setelah malam-malam yang ramai itu."] * 25, True),
        (["Rozumiem, że to jest dla ciebie trudne i że nie możesz w nocy spać."] * 20, True),
        *(([pair[0]], True) for pair in PAIRS.values()),
        (["", "?!"], False),
    ],
)
def test_what_is_not_english(texts: list[str], foreign: bool) -> None:
    assert is_foreign(texts) is foreign


def of_the_field(language: str) -> dict[str, Any]:
    rows = read_predictions(field(f"predictions/18-{language}.jsonl"))
    return dict(evaluate(rows, metrics=("text", "meteor")).to_json()["text"])


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("japanese", (0.766, 0.804, 0.774, 0.785, 0.624)),
        ("thai", (0.709, 0.775, 0.753, 0.732, 0.641)),
        ("chinese", (0.740, 0.804, 0.793, 0.746, 0.496)),
    ],
)
def test_scripts_without_blanks_of_the_field(language: str, expected: tuple[float, ...]) -> None:
    found = of_the_field(language)
    names = ("bleu1_utterance", "f1_utterance", "rouge_l_utterance", "meteor_utterance", "sacrebleu")
    assert [found[name] for name in names] == pytest.approx(expected, abs=5e-4)
    assert (found["tokenizer"], found["rouge_score_l_utterance"]) == ("characters", None)


@pytest.mark.parametrize(
    ("language", "bleu", "tokens"), [("telugu", 0.645, 4.167), ("arabic", 0.674, 4.667), ("russian", 0.686, 4.833)]
)
def test_scripts_with_blanks_of_the_field(language: str, bleu: float, tokens: float) -> None:
    found = of_the_field(language)
    assert (found["bleu1_utterance"], found["mean_tokens"]) == pytest.approx((bleu, tokens), abs=5e-4)
    assert found["rouge_score_l_utterance"] is None


def test_long_replies_of_the_field() -> None:
    assert of_the_field("japanese-long")["over_40_words_share"] == 1
