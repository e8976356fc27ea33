"""Which images this runner brought to its node, and when each was used last: no other may ever be taken away."""

from dataclasses import dataclass, field, replace

from kohakuriver.runner.store import Store
from kohakuriver.system.clock import Clock
from kohakuriver.system.image_hands import FoundImage


@dataclass(frozen=True, slots=True)
class Brought:
    """Under which name an image was brought, and when it was used last (unix seconds)."""

    name: str
    used_at: float


@dataclass(slots=True)
class ImageLedger:
    """By image id; the store keeps names, what was used lately is forgotten with the runner and then counts as new."""

    store: Store
    clock: Clock
    brought: dict[str, Brought] = field(default_factory=dict)

    async def load(self) -> None:
        """What a runner before this one had brought; it counts as just used."""
        names = await self.store.brought_images()
        self.brought = {image_id: Brought(name, self.clock.now()) for image_id, name in names.items()}

    async def add(self, found: FoundImage, name: str) -> None:
        """It was brought by us."""
        await self.store.bring_image(found.id, name)
        self.brought[found.id] = Brought(name, self.clock.now())

    def use(self, found: FoundImage) -> None:
        """Something is about to be made of it."""
        if found.id in self.brought:
            self.brought[found.id] = replace(self.brought[found.id], used_at=self.clock.now())

    async def forget(self, image_id: str) -> None:
        """It is not here any more."""
        await self.store.forget_image(image_id)
        self.brought.pop(image_id, None)
