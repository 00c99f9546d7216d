"""Models: everything that knows TransformerLens and transformers.

The rest of the package relies on these rules, and tests check them for each supported family:

- every linear map has the uniform name `(layer, matrix)`, with matrix in `q k v o in gate out`;
- weights are read as the checkpoint stores them: no folded norms, no centring;
- no linear map is changed unless an edit is on. Without an edit, the model computes what the original does, up to
  rounding: fused attention projections are split, and logits are computed only at the positions that are read.
"""
