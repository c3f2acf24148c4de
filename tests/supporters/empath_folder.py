"""A whole supporter of kind empath, tiny: experts of the little bank's roles, a planner of shares."""

from pathlib import Path

from esckit.language_models.backbone import hash_weights
from esckit.planning.fitting import train_planner
from esckit.planning.matcher_fitting import train_matcher
from esckit.planning.matcher_options import MatcherOptions
from esckit.planning.planner_options import PlannerOptions
from esckit.strategy import ESCONV
from esckit.supporters.casting_options import CastingOptions
from esckit.supporters.supporter_folder import SupporterCard, save_supporter
from tests.mixtures import with_experts
from tests.planning.test_role_matcher import questions
from tests.roles.little import little_bank
from tests.tiny import save_base, starter_dialogues, tiny_model


def write_whole_empath(place: Path) -> Path:
    """Write its parts into a folder, and itself into the subfolder ``empath``; return that."""
    bank = little_bank()
    mixture = with_experts(tiny_model(), seed=2, members={"role": bank.names, "strategy": ESCONV.labels})
    mixture.peft_config["generator"].bank = bank.digest
    mixture.save_pretrained(str(place))
    train_planner(starter_dialogues(6, 8), None, ESCONV, PlannerOptions(model="majority"), place / "planner")
    asked = [*questions("en", 6), *questions("zh", 2)]
    train_matcher(asked, bank, None, place / "roles", options=MatcherOptions(folds=2, threshold=0))
    card = SupporterCard(
        "empath",
        "gold",
        base_hash=hash_weights(tiny_model(), rounded=True),
        max_context=2048,
        planner="encoder",
        casting=CastingOptions().model_dump(mode="json"),
    )
    parts = {part: place / part for part in ("generator", "planner", "roles")}
    save_supporter(place / "empath", card, parts, save_base(place / "base"))
    return place / "empath"
