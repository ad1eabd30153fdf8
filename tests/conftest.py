"""What is left out where pyiroh is not installed: the tests of it alone."""

from tests.needs import has_pyiroh

collect_ignore = (
    []
    if has_pyiroh()
    else [
        "contract/test_iroh_pumps.py",
        "contract/test_iroh_transport.py",
        "faults/pyiroh",
        "unit/pyiroh",
    ]
)
