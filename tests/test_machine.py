import pytest

from cubefill.errors import PlanError
from cubefill.machine import budget_bytes, free_memory, refuse_above, size


def test_a_budget_is_words_bytes_or_what_is_free() -> None:
    assert budget_bytes("2GB") == 2_000_000_000
    assert budget_bytes(1024) == 1024
    assert 0 < budget_bytes(None) <= free_memory()


def test_a_budget_that_is_no_size_is_refused() -> None:
    with pytest.raises(PlanError, match=r"expected a size such as '4GB'"):
        budget_bytes("lots")


def test_the_refusal_names_both_numbers() -> None:
    with pytest.raises(PlanError, match=r"256 px needs 2 GB; the memory budget is 1.5 GB.*'2.0GB'"):
        refuse_above(2_000_000_000, 1_500_000_000, 256, None)
    refuse_above(1, 2, 256, None)


def test_sizes_in_words() -> None:
    assert size(1_234_000_000) == "1.23 GB"
    assert size(12) == "12 B"
    assert size(1_210_000_000, up=True) == "1.3GB"
