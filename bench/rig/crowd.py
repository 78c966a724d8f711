"""Many models in one installation, of which a few are busy."""

from concurrent.futures import ThreadPoolExecutor

from rig import artifacts
from rig.modelkeep import Modelkeep, Variant

_AT_ONCE = 3


class Crowd(Modelkeep):
    """Modelkeep with `models` registered, `loaded` of them with a version that answers, `busy` of those asked in rotation."""

    def __init__(self, variant: Variant, models: int, loaded: int, busy: int, *, core: int | None) -> None:
        self._loaded = max(loaded, busy)
        self._models = max(models, self._loaded)
        self._busy = busy
        super().__init__(artifacts.ROWS, variant, core=core, names=[f"busy-{number}" for number in range(busy)], start_s=7200)

    def settle(self) -> None:
        """Register the others, a few at once."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for number in pool.map(self._add, range(self._busy, self._models)):
                if (number + 1) % 50 == 0:
                    print(f"  {number + 1} of {self._models} models", flush=True)

    def _add(self, number: int) -> int:
        name = f"idle-{number}"
        if number < self._loaded:
            self.push(name)
        else:
            self.register(name)
        return number
