"""Which versions serving may cache unasked: none of formats that are programs of an uploader's."""

from modelkeep.app.bootstrap import manifests
from modelkeep.control.deployments.rules import RUNS_ANY_CODE

ESTIMATORS_AND_NETWORKS = {"sklearn", "torch"}
"""Their files may run code while they load, but hold models of a framework, which validation sees repeat themselves."""


def test_of_every_runner_of_a_format_that_is_code_somebody_has_decided() -> None:
    code = {one.name for one in manifests() if any(form.safety == "code" for form in one.formats)}
    assert code == RUNS_ANY_CODE | ESTIMATORS_AND_NETWORKS
    assert not RUNS_ANY_CODE & ESTIMATORS_AND_NETWORKS
