"""When something that died is started again: soon at first, then later; and when it is held back instead.

Pure: time comes in as an argument (seconds of a monotonic clock).
"""

from collections import deque
from dataclasses import dataclass, field

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0
DEATHS_TO_HOLD = 5
WINDOW_S = 60.0
HOLD_S = 60.0


@dataclass(frozen=True)
class Decision:
    """Start it again after `delay_s` seconds. `held`: it died too often, and whoever waits for it should be told."""

    delay_s: float
    held: bool = False


@dataclass
class Restarts:
    """The deaths of one thing that is kept alive. A minute without one forgets them all."""

    longest_delay_s: float = LONGEST_DELAY_S
    hold_s: float = HOLD_S
    _deaths: deque[float] = field(default_factory=deque)

    def died(self, now: float) -> Decision:
        """Note a death at `now` and say what to do."""
        while self._deaths and now - self._deaths[0] > WINDOW_S:
            self._deaths.popleft()
        self._deaths.append(now)
        count = len(self._deaths)
        if count >= DEATHS_TO_HOLD:
            return Decision(self.hold_s, held=True)
        return Decision(min(FIRST_DELAY_S * 2 ** (count - 1), self.longest_delay_s))
