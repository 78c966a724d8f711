"""Whether this process and its database answer. The only route, besides the set-up, that takes no key."""

from fastapi import APIRouter

from modelkeep.api.schemas.wire import HealthAnswer
from modelkeep.api.services import Behind

router = APIRouter(tags=["control plane"])


@router.get("/health")
async def get_control_plane_health(behind: Behind) -> HealthAnswer:
    """Say "ok" once the database has answered."""
    await behind.users.anyone()
    return HealthAnswer()
