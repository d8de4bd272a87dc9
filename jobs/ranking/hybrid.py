"""The hybrid model: items are the sum of what they are, users the sum of what is known of them. LightFM, WARP loss.

The only module that imports lightfm. One thread and a seed give the same bytes every time; with four threads, two
trainings share 55 % of their top 20. A model is arrays, never a pickle.

Items have no vector of their own: what it learns, their words and categories do not, and cold items are left with less
(docs/decisions/019-the-hybrid-model-is-features.md).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from schemas.cold_start import HybridSettings
from schemas.errors import GateError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HybridModel:
    """What was learned of each feature.

    Shapes: item_vectors (item features, components), user_vectors (user features, components), biases (features,).
    """

    item_vectors: Floats
    item_biases: Floats
    user_vectors: Floats
    user_biases: Floats


def fit(
    interactions: sparse.csr_array,
    item_features: sparse.csr_array,
    user_features: sparse.csr_array,
    settings: HybridSettings,
) -> HybridModel:
    """Learn which features go together from who showed interest in what.

    Shapes: interactions (users, items), entries above 0; item_features (items, …); user_features (users, …). Each user
            has a vector of their own besides, which is thrown away: it keeps their taste out of the shared features.
    Raises: GateError if the training diverged.
    Source: Kula, Metadata embeddings for user and item cold-start recommendations, CBRecSys 2015 (the model); Weston
            et al., WSABIE, IJCAI 2011 (the loss).
    """
    from lightfm import LightFM

    users = interactions.shape[0]
    known = user_features.shape[1]
    own = sparse.eye_array(users, dtype=np.float32, format="csr")
    model = LightFM(
        no_components=settings.components,
        loss="warp",
        learning_rate=settings.learning_rate,
        random_state=settings.seed,
    )
    positive = sparse.csr_array(
        (np.ones(interactions.nnz, np.float32), interactions.indices, interactions.indptr), shape=interactions.shape
    )
    try:
        # What runs away is found by LightFM, which adds up what is not finite.
        with np.errstate(all="ignore"):
            model.fit(
                _as_lightfm(positive).tocoo(),
                user_features=_as_lightfm(sparse.hstack([user_features, own], format="csr")),
                item_features=_as_lightfm(item_features),
                epochs=settings.epochs,
                num_threads=settings.threads,
            )
    except ValueError as error:
        raise GateError(
            f"the hybrid model diverged ({error}) with learning_rate {settings.learning_rate:g} over {settings.epochs} "
            "epochs; expected finite vectors. Lower [hybrid] learning_rate (0.05 by default) in the campaign"
        ) from error
    return HybridModel(
        item_vectors=model.item_embeddings,
        item_biases=model.item_biases,
        user_vectors=model.user_embeddings[:known],
        user_biases=model.user_biases[:known],
    )


def _as_lightfm(matrix: sparse.csr_array) -> sparse.csr_matrix:
    """LightFM takes SciPy's older classes, with 32-bit indices."""
    parts = (matrix.data.astype(np.float32), matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return sparse.csr_matrix(parts, shape=matrix.shape)
