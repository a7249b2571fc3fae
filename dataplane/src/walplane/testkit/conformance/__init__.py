"""The one conformance suite that every backend passes, as a class to inherit from. Layer: testkit.

A backend's test file gives a `harness` fixture and inherits the tests:

    @pytest.fixture
    async def harness(tmp_path: Path) -> AsyncIterator[ConformanceHarness]:
        ...

    class TestConformanceMemory(BackendConformance):
        pass
"""

from walplane.testkit.conformance.fencing import FencingConformance
from walplane.testkit.conformance.harness import Acknowledged, ConformanceHarness
from walplane.testkit.conformance.reading import ReadingConformance
from walplane.testkit.conformance.writing import WritingConformance

__all__ = ["Acknowledged", "BackendConformance", "ConformanceHarness"]


class BackendConformance(WritingConformance, ReadingConformance, FencingConformance):
    """All tests of the suite."""
