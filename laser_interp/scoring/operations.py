"""The least number of floating-point operations that a score needs. Estimates of cost are scaled by it."""

from collections.abc import Sequence

from laser_interp.edits.sites import Site
from laser_interp.models.model import Model
from laser_interp.scoring.side_by_side import downstream


def operations(model: Model, site: Site, ranks: Sequence[int], lengths: Sequence[int]) -> float:
    """Floating-point operations that scoring LASER at one site really needs, for all its ranks together.

    Only matrix products count; a multiplication and an addition are two operations. A prompt has n tokens, of which the
    last is read, and P(m) is the size of the weight of m. For each prompt, each rank r needs:

    - `2 n ΣP + 2 n² d_attn` in each layer above the site. The second term is for attention's scores and values: causal
      attention looks at half of n² pairs. In the last layer, `2 n P` for k and v, `2 P` for other matrices, and
      `4 n d_attn`;
    - in the site's own layer, the same for the matrices that its output reaches;
    - `2 n r d_out` for the site itself (`2 r d_out` in the last layer, except for k and v);
    - `2 d_model d_vocab` for one row of the unembedding.

    All ranks together need `2 n r_max d_in` for `x U`. Prompts with equal beginnings need less than this.
    """
    last = model.n_layers - 1
    below = downstream(model, site.layer)[site.matrix]
    own = model.matrices_of(site.layer)  # other kinds of layers, where there are any, are counted as this one
    size = {m: model.weight(site.layer, m).numel() for m in own}
    d_attn = model.weight(site.layer, "o").shape[0] if "o" in own else model.d_model
    d_in, d_out = model.weight(site.layer, site.matrix).shape

    def layer(n: int, matrices: set[str], is_last: bool, attention: bool) -> float:
        n_computed = {m: n if m in ("k", "v") or not is_last else 1 for m in own}
        products = sum(2.0 * n_computed[m] * size[m] for m in own if m in matrices)
        return products + (2.0 * n * d_attn * (2 if is_last else n) if attention else 0.0)

    total = 0.0
    for n in lengths:
        each = 2.0 * model.d_model * model.d_vocab
        if site.layer < last:
            each += (last - 1 - site.layer) * layer(n, set(size), False, True) + layer(n, set(size), True, True)
        each += layer(n, below, site.layer == last, site.matrix in ("q", "k", "v"))
        at = n if site.layer < last or site.matrix in ("k", "v") else 1
        total += len(ranks) * each + 2.0 * at * (sum(ranks) * d_out + max(ranks) * d_in)
    return total
