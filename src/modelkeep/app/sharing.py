"""Whether something can be shared through Redis, found out before anything starts."""

from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.secret import Secret


def check_redis(url: Secret, name: str = "limits.redis_url") -> None:
    """Raise `Invalid` where there is no client of Redis, or no connection can be made of this address; an empty one is none."""
    if not url:
        return
    try:
        from modelkeep.infra.redis_rates import check
    except ImportError as error:
        raise Invalid(f"{name} needs: pip install 'modelkeep[redis]'") from error
    try:
        check(url.reveal())
    except (ValueError, TypeError) as error:
        raise Invalid(f"{name} is no address of a Redis server, or has parameters that are none.") from error
