"""For those who write a store of their own: the suite that every store of Digi passes.

With pytest:

    import pytest
    from digi.testing import Subject, run_store_test, store_suite_tests

    @pytest.mark.parametrize("name", store_suite_tests())
    def test_store(name):
        print(*run_store_test(name, lambda: Subject(MyStore())), sep="\\n")
"""

from digi._digi import Subject, run_store_test, store_suite_tests

__all__ = ["Subject", "run_store_test", "store_suite_tests"]
