"""Many models in one installation, of which a few are busy."""

from rig import artifacts
from rig.modelkeep import Modelkeep, Variant


class Crowd(Modelkeep):
    """Modelkeep with `models` registered, `loaded` of them with a version that answers, `busy` of those asked in rotation."""

    def __init__(self, variant: Variant, models: int, loaded: int, busy: int, *, core: int | None) -> None:
        self._loaded = max(loaded, busy)
        self._models = max(models, self._loaded)
        self._registered = busy
        super().__init__(artifacts.ROWS, variant, core=core, names=[f"busy-{number}" for number in range(busy)], start_s=7200)

    def settle(self) -> None:
        """Register the others, one after the other."""
        while self._registered < self._models:
            name = f"idle-{self._registered}"
            if self._registered < self._loaded:
                self.push(name)
            else:
                self.register(name)
            self._registered += 1
            if self._registered % 50 == 0:
                print(f"  {self._registered} of {self._models} models", flush=True)
