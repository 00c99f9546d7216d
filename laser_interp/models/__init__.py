"""Models: everything that knows TransformerLens and transformers.

What the rest relies on, and what the tests hold for each supported family:

- every linear map has the uniform name `(layer, matrix)`, with matrix in `q k v o in gate out`;
- weights are read as the checkpoint stores them: no folded norms, no centring;
- nothing is hooked unless an edit is on. The unedited model is the original, within the rounding of split attention
  projections and of reading the unembedding only where it is asked for.
"""
