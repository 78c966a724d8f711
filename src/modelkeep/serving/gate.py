"""Who comes in: a good key, from where it may be used. Who fails is slowed down by address."""

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelkeepError, Unauthenticated, WrongNetwork
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.infra import cookies
from modelkeep.infra.addresses import Proxies, within
from modelkeep.infra.failures import Failures
from modelkeep.infra.headers import presented_key
from modelkeep.serving.keys import Keys
from modelkeep.serving.messages import Request
from modelkeep.serving.stand_in import StandIn


class Gate:
    """Lets requests in by their keys. With `locates`, each that comes in is told its address, which costs some microseconds."""

    def __init__(
        self,
        keys: Keys,
        stand_in: StandIn | None = None,
        *,
        proxies: Proxies | None = None,
        failures: Failures | None = None,
        locates: bool = False,
    ) -> None:
        self._keys = keys
        self._stand_in = stand_in or StandIn(keys, b"", ())
        self._proxies = proxies or Proxies()
        self._failures = failures or Failures(None)
        self._locates = locates

    def enter(self, request: Request, scope: Scope) -> ServedKey:
        """Return the key that a request counts by, and leave it there.

        Raises as `Keys.check` does, `WrongCertificate`, `CertificateExpired`, `CertificateUnclear`, `WrongNetwork`, `Limited`
        after too many failures, or `CsrfRefused` where a browser may have been made to send what it sends.
        """
        try:
            presented = presented_key(request.headers) or cookies.presented(request.headers, request.method)
            if presented is None:
                key = self._stands_for(request, scope)
            else:
                key = self._keys.check(presented, scope, lambda: self._failures.look(self.locate(request)))
            if key.certificate is not None:
                key.certificate.check(request.certificate, self._keys.now())
        except (Unauthenticated, cookies.CsrfRefused):
            address = self.locate(request)
            self._failures.look(address)
            self._failures.bad(address)
            raise
        if key.networks or self._locates:
            address = self.locate(request)
            if key.networks and not within(address, key.networks):
                raise WrongNetwork
        request.key = key
        return key

    def known(self, request: Request, scope: Scope) -> ServedKey | None:
        """Return the key of a caller who need not have one, None for a stranger."""
        try:
            stranger = presented_key(request.headers) is None and cookies.presented(request.headers, request.method) is None
            return None if stranger and self._certified(request, scope) is None else self.enter(request, scope)
        except ModelkeepError:
            return None

    def _certified(self, request: Request, scope: Scope) -> ServedKey | None:
        """Return the key that the certificate of a caller stands for who shows nothing else; None where it stands for none."""
        shown = request.certificate
        return self._keys.certified(shown, scope) if shown is not None and cookies.shows_nothing(request.headers) else None

    def _stands_for(self, request: Request, scope: Scope) -> ServedKey:
        """Return the key that stands for a caller who shows none: by their certificate, or by the route."""
        key = self._certified(request, scope)
        if key is not None:
            return key
        if self._stand_in.covers(request):
            return self._stand_in.key(scope)
        raise Unauthenticated

    def locate(self, request: Request) -> str | None:
        """Return the address that a request comes from, and leave it there; None where it is not known."""
        if request.address is None:
            request.address = self._proxies.caller(request.peer, request.fields)
        return request.address
