"""Reports are kept for as long as their versions: older ones lack what was not measured then."""

import msgspec

from modelkeep.contracts.report import Compilation, Report


def test_a_report_of_before_is_still_read():
    kept = b'{"framework": "scikit-learn", "framework_version": "1.9.1", "compiled": {"used": true, "latency_ms": {"1": 0.02}}}'
    report = msgspec.json.decode(kept, type=Report)
    assert report.compiled == Compilation(used=True, latency_ms={"1": 0.02}, speed=0.0)
    assert report.cost_ms == {"1": 0.02}
