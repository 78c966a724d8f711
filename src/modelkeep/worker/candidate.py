"""A replay against another version: what it answers to the same rows, compared as a shadow's live answers are."""

from bisect import bisect_left
from typing import Final

from modelkeep.contracts.shadow import SECONDS, WorstRow
from modelkeep.contracts.signature import Signature
from modelkeep.contracts.snapshot import Recording
from modelkeep.control.models.rules import Version
from modelkeep.control.replays.rules import Candidate
from modelkeep.control.shadows.rules import quantiles, told
from modelkeep.serving.disagreement import Disagreement, Pair
from modelkeep.stats.counts import share_bounds
from modelkeep.worker.comparing import Part

NAMES: Final = ("The version that is replayed", "The candidate")
_MS: Final = [bound * 1000 for bound in SECONDS]


class Beside:
    """Compares a candidate's answers (a part's `serving` ones) with those of the version that is replayed (`original`)."""

    def __init__(self, replayed: Version, candidate: Version) -> None:
        assert replayed.signature is not None  # noqa: S101 - a ready version has a signature
        columns = {one.name: one.columns for one in replayed.signature.inputs if one.columns}
        self.candidate = candidate
        self.refused = 0
        """How many rows one of the two could not answer."""
        self._disagreement = Disagreement(replayed.scores, columns=columns)
        self._refused_differ = 0
        self._replayed_s = [0] * (len(SECONDS) + 1)
        self._candidate_s = [0] * (len(SECONDS) + 1)

    def take(self, part: Part, recording: Recording | None) -> None:
        """Compare the answers to these rows; `recording` is the policy by which they are in the history, None for not."""
        question = part.question
        if isinstance(part.original, str) or isinstance(part.serving, str):
            same = isinstance(part.original, str) and isinstance(part.serving, str) and part.original == part.serving
            self.refused += part.rows
            self._refused_differ += 0 if same else part.rows
            return
        self._replayed_s[bisect_left(SECONDS, part.original_s)] += 1
        self._candidate_s[bisect_left(SECONDS, part.serving_s)] += 1
        inputs = {name: array[part.start : part.start + part.rows] for name, array in question.tensors.items()}
        shown = recording if question.prediction is not None and not question.answered.partly else None
        pair = Pair(question.prediction or "", question.at, part.rows, inputs, part.original, part.serving, shown)
        self._disagreement.take(pair, first_row=part.start)

    @property
    def worst(self) -> tuple[WorstRow, ...]:
        """The rows that are shown."""
        return self._disagreement.worst

    def summary(self) -> Candidate:
        """Return how it came out; a row that only one of the two could answer differs."""
        compared = self._disagreement.seen()
        rows, differ = compared.rows + self.refused, compared.differ + self._refused_differ
        report = told(compared)
        return Candidate(
            version=self.candidate.number,
            version_id=self.candidate.id,
            rows=rows,
            differ=differ,
            disagreement=share_bounds(differ, rows),
            replayed_ms=quantiles(_MS, self._replayed_s),
            candidate_ms=quantiles(_MS, self._candidate_s),
            outputs=report["outputs"],
            slices=report["slices"],
        )


def same_inputs(one: Signature, other: Signature) -> bool:
    """Whether two versions take the same rows."""
    ours, theirs = ([(spec.name, spec.dtype, spec.shape, spec.columns) for spec in of.inputs] for of in (one, other))
    return ours == theirs
