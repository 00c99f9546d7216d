"""Blocks: the outputs or the inputs of a matrix in groups, each with a singular value decomposition of its own.

One decomposition describes a matrix by one subspace. Where its rows lie near several subspaces, each group of rows is
described better by a decomposition of its own (*Compress to Impress*, arXiv 2510.20800, which edits such blocks). With
one block this is LASER. The factors of the blocks stand side by side: `U` or `Vh` is block diagonal, and `W = U diag(S)
Vh` holds as for a whole matrix, so that every edit is gains on directions here too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from laser_interp.choices import BlockGrouping, BlockSide, check_choice


@dataclass(frozen=True)
class Blocks:
    """How a matrix is divided. Its text is `4-outputs`, `4-inputs` or, with k-means, `4-outputs-kmeans`.

    Attributes:
        number: how many blocks.
        of: "outputs" divides what the matrix writes (the rows of `nn.Linear.weight`), "inputs" what it reads.
        grouped: "contiguous" takes neighbours, in blocks of equal size; "kmeans" takes those whose weights point in
            similar directions (scikit-learn's k-means on the normalised weight vectors, seed 0).

    Raises:
        ValueError: fewer than two blocks, or another side or grouping.

    Example:
        >>> str(li.Blocks(4))
        '4-outputs'
    """

    number: int
    of: BlockSide = "outputs"
    grouped: BlockGrouping = "contiguous"

    def __post_init__(self) -> None:
        if self.number < 2:
            raise ValueError(f"blocks is {self.number}: expected two or more; one block is the whole matrix")
        check_choice("blocks", self.of, BlockSide)
        check_choice("blocks", self.grouped, BlockGrouping)

    def __str__(self) -> str:
        return f"{self.number}-{self.of}" + ("" if self.grouped == "contiguous" else f"-{self.grouped}")

    @classmethod
    def parse(cls, value: AnyBlocks) -> Blocks | None:
        """Blocks from a number or their text; None, or one block, is the whole matrix.

        Raises:
            ValueError: text of another form.
        """
        if value is None or isinstance(value, Blocks):
            return value
        match = re.fullmatch(r"(\d+)(?:-(outputs|inputs))?(?:-(kmeans|contiguous))?", str(value).strip())
        if match is None or int(match[1]) < 1 or isinstance(value, bool):
            raise ValueError(f"blocks is {value!r}: expected a number, or text as in 4-outputs, 4-inputs-kmeans")
        if int(match[1]) == 1:
            return None
        return cls(int(match[1]), match[2] or "outputs", match[3] or "contiguous")  # type: ignore[arg-type]


AnyBlocks = Blocks | int | str | None
