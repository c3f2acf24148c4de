"""A Hub that cannot be reached is said in seconds: no test here needs a network, each asks a port that is closed."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from esckit.corpora.esconv import read_esconv_hub
from esckit.errors import CorpusError, EsckitError, ModelError
from esckit.hub import is_hub_id, unreachable
from esckit.language_models.backbone import check_reachable, load_backbone
from esckit.measures.encoders import bertscore_figures, relevance_figures
from esckit.planning.encoder import load_encoder


@pytest.fixture(autouse=True)
def closed_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is away, nothing of it is in the cache, and its library may not wait to try again."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for module in [module for name, module in sys.modules.items() if name.startswith("huggingface_hub.")]:
        if hasattr(module, "HF_HUB_CACHE"):
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits before it tries again"))


AWAY = (
    "owner/name is no folder here, and the Hugging Face Hub cannot be reached (ConnectError): give a folder instead, "
)


@pytest.mark.parametrize("ask", [check_reachable, load_backbone, load_encoder])
def test_a_model_on_a_hub_that_is_away_is_said_at_once(ask: Callable[[str], object]) -> None:
    with pytest.raises(ModelError) as error:
        ask("owner/name")
    assert str(error.value) == (
        f"{AWAY}which `hf download owner/name --local-dir FOLDER` fills where the Hub can be reached."
    )


def test_esconv_on_a_hub_that_is_away_is_said_at_once() -> None:
    with pytest.raises(CorpusError, match=r"cannot be fetched from the Hugging Face Hub \(ConnectionError\): install"):
        read_esconv_hub()


def test_a_measure_s_encoder_on_a_hub_that_is_away_is_said_at_once() -> None:
    reason = "cannot load the encoder 'owner/name' .the Hugging Face Hub cannot be reached .ConnectError..: give a mod"
    with pytest.raises(EsckitError, match=f"bertscore {reason}"):
        bertscore_figures(["a"], ["a"], "owner/name")
    with pytest.raises(EsckitError, match=f"relevance {reason}"):
        relevance_figures([["a"]], ["a"], "owner/name")


def test_what_the_cache_holds_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: "a/file")
    assert unreachable("owner/name") is None


def test_a_name_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    def unknown(*_: object, **__: object) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unknown)
    assert (
        unreachable("owner/name", kind="dataset") == "the Hugging Face Hub has no dataset of this name that you may see"
    )


@pytest.mark.parametrize(
    ("source", "is_id"),
    [("owner/name", True), ("Qwen/Qwen2.5-7B", True), ("bert-base", True)]
    + [(source, False) for source in ("/a/b", "./a", "a/b/c", "~/a", "")],
)
def test_what_can_be_a_name_on_the_hub(source: str, is_id: bool) -> None:
    assert is_hub_id(source) is is_id


def test_a_folder_is_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("owner/name")
    check_reachable("owner/name")
