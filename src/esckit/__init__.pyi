# The public API, name by name: what `import esckit` offers, and where it comes from (see __init__.py).

# Without torch.
from .conversation import (
    REASONS,
    Conversation,
    GrowingTree,
    Preference,
    Turn,
    Verdict,
    check_conversation,
    iterate_conversations,
    mined_id,
    read_conversations,
    write_conversations,
)
from .corpora import Corpus, corpus_statistics, load_corpus, read_corpus, write_corpus
from .corpora.linter import check_files
from .decoding import Decoding
from .errors import EsckitError
from .judging.annotation import annotate
from .judging.judge_run import judge_files
from .judging.open_annotator import AnnotatorOptions, open_annotator
from .judging.plan import JudgingOptions
from .measures import (
    Prediction,
    add_predictions,
    agreement,
    bradley_terry,
    compare,
    evaluate,
    import_predictions,
    prediction_from_json,
    prediction_to_json,
    predictions_in,
    read_predictions,
    read_ratings,
)

# With esckit[train].
from .mining.derivation.by_name import derive_corpus
from .mining.derivation.options import DerivationOptions
from .mining.inferential import Miner
from .mining.mining_options import MiningOptions
from .mining.self_refinement.by_name import refine_corpus
from .mining.self_refinement.options import RefinementOptions
from .mining.tree_search.options import SearchOptions
from .mining.tree_search.run import search_dialogues
from .planning.planner_options import PlannerOptions
from .recipes.recipe_files import load_recipe, shipped_recipes
from .recipes.runner import run
from .roles import RoleBank, read_bank
from .strategy import TAXONOMIES, Taxonomy
from .supporters.chat import Chat
from .supporters.embedded import embedded_supporter, make_supporter
from .supporters.export_adapters import export_adapters
from .supporters.own_model import open_supporter
from .supporters.prediction import predict, predict_conversation
from .supporters.proposing import Candidate, TurnRequest
from .supporters.supporter import Supporter

__version__: str

__all__ = [
    "REASONS",
    "TAXONOMIES",
    "AnnotatorOptions",
    "Candidate",
    "Chat",
    "Conversation",
    "Corpus",
    "Decoding",
    "DerivationOptions",
    "EsckitError",
    "GrowingTree",
    "JudgingOptions",
    "Miner",
    "MiningOptions",
    "PlannerOptions",
    "Prediction",
    "Preference",
    "RefinementOptions",
    "RoleBank",
    "SearchOptions",
    "Supporter",
    "Taxonomy",
    "Turn",
    "TurnRequest",
    "Verdict",
    "__version__",
    "add_predictions",
    "agreement",
    "annotate",
    "bradley_terry",
    "check_conversation",
    "check_files",
    "compare",
    "corpus_statistics",
    "derive_corpus",
    "embedded_supporter",
    "evaluate",
    "export_adapters",
    "import_predictions",
    "iterate_conversations",
    "judge_files",
    "load_corpus",
    "load_recipe",
    "make_supporter",
    "mined_id",
    "open_annotator",
    "open_supporter",
    "predict",
    "predict_conversation",
    "prediction_from_json",
    "prediction_to_json",
    "predictions_in",
    "read_bank",
    "read_conversations",
    "read_corpus",
    "read_predictions",
    "read_ratings",
    "refine_corpus",
    "run",
    "search_dialogues",
    "shipped_recipes",
    "write_conversations",
    "write_corpus",
]
