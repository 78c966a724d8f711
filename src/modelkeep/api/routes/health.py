"""Whether this process and its database answer. The only route, besides the set-up, that takes no key."""

from fastapi import APIRouter

from modelkeep.api.services import Behind

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(behind: Behind) -> dict[str, str]:
    """Say "ok" once the database has answered."""
    await behind.users.anyone()
    return {"status": "ok"}
