"""From histories to recommendations, one file per method.

The registry names a method's module and class instead of importing it: listing methods costs nothing, and a method is
loaded when it is asked for.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserec.config import build, choose
from tesserec.errors import ConfigError

if TYPE_CHECKING:
    from tesserec.recommenders.base import Recommender
    from tesserec.text.embeddings import Embeddings
    from tesserec.tokenizers.semantic_ids import SemanticIds
    from tesserec.training.config import TrainingConfig
    from tesserec.types import PathLike

RECOMMENDERS = {
    "popularity": "tesserec.recommenders.popularity:Popularity",
    "own-history": "tesserec.recommenders.own_history:OwnHistory",
    "item-graph": "tesserec.recommenders.item_graph:ItemGraph",
    "s3rec": "tesserec.recommenders.s3rec:S3Rec",
    "sasrec": "tesserec.recommenders.sasrec:SASRec",
    "sasrec-text": "tesserec.recommenders.sasrec_text:SASRecText",
    "bsarec": "tesserec.recommenders.bsarec:BSARec",
    "hstu": "tesserec.recommenders.hstu:HSTU",
    "bert4rec": "tesserec.recommenders.bert4rec:BERT4Rec",
    "lcrec": "tesserec.recommenders.lcrec:LCRec",
    "recguru": "tesserec.recommenders.recguru:RecGURU",
    "tiger": "tesserec.recommenders.tiger:Tiger",
    "ccfrec": "tesserec.recommenders.ccfrec:CCFRec",
    "unified": "tesserec.recommenders.unified:Unified",
    "unisrec": "tesserec.recommenders.unisrec:UniSRec",
    "zesrec": "tesserec.recommenders.zesrec:ZESRec",
    "fdsa": "tesserec.recommenders.fdsa:FDSA",
    "vqrec": "tesserec.recommenders.vqrec:VQRec",
}


def recommender_class(method: str) -> "type[Recommender]":
    """The class of a method.

    Raises:
        ConfigError: there is no such method; the nearest one is named.
    """
    module, name = choose(method, RECOMMENDERS, what="recommender").split(":")
    found: type[Recommender] = getattr(import_module(module), name)
    return found


def make_recommender(
    method: str,
    settings: Mapping[str, Any] | None = None,
    training: "TrainingConfig | None" = None,
    semantic_ids: "SemanticIds | None" = None,
    embeddings: "Embeddings | None" = None,
) -> "Recommender":
    """An unfitted recommender from plain settings, as recipes hold them.

    Args:
        method: a key of `RECOMMENDERS`.
        settings: fields of the method's `config_class`; those left out keep their default.
        training: for methods that are trained; None: `TrainingConfig()`.
        semantic_ids: for methods that recommend by semantic IDs.
        embeddings: for methods that read the items' text embeddings.

    Raises:
        ConfigError: an unknown method or setting, or semantic IDs or embeddings are missing.
    """
    from tesserec.training.config import TrainingConfig

    found: Any = recommender_class(method)
    config = build(found.config_class, settings or {}, where="recommender")
    needed: dict[str, Any] = {"config": config}
    if found.is_trained:
        needed["training"] = training or TrainingConfig()
    if found.needs_semantic_ids:
        if semantic_ids is None:
            raise ConfigError(f"{method} recommends by semantic IDs. Add a tokenizer, or pass semantic_ids.")
        needed["semantic_ids"] = semantic_ids
    if found.needs_embeddings:
        if embeddings is None:
            raise ConfigError(f"{method} reads item embeddings. Encode the items' texts, or pass embeddings.")
        needed["embeddings"] = embeddings
    made: Recommender = found(**needed)
    return made


def load_recommender(folder: "PathLike") -> "Recommender":
    """Open a trained recommender of any method.

    Raises:
        ArtifactError: the folder holds no recommender, or a damaged one.
    """
    from tesserec.artifacts import method_of

    return recommender_class(method_of(folder, kind="recommender")).load(folder)
