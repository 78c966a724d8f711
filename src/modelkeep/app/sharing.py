"""Whether rates can be shared through Redis, found out before anything starts."""

from modelkeep.contracts.errors import Invalid


def check_redis(url: str) -> None:
    """Raise `Invalid` where there is no client of Redis, or no connection can be made of this address; "" is none."""
    if not url:
        return
    try:
        from modelkeep.infra.redis_rates import check
    except ImportError as error:
        raise Invalid("limits.redis_url needs: pip install 'modelkeep[redis]'") from error
    try:
        check(url)
    except (ValueError, TypeError) as error:
        raise Invalid("limits.redis_url is no address of a Redis server, or has parameters that are none.") from error
