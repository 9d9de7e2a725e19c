"""Errors keep their facts on the way between processes."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from storage.errors import UserError


def refuse() -> None:
    raise UserError("bad_size", low=16, high=1536)


def test_an_error_that_is_pickled_keeps_its_facts() -> None:
    error = pickle.loads(pickle.dumps(UserError("bad_size", low=16, high=1536)))
    assert (error.code, error.facts) == ("bad_size", {"low": 16, "high": 1536})


class Refused(UserError):
    """As some of ours, it takes no arguments."""

    def __init__(self) -> None:
        super().__init__("refused", number=1)


def test_an_error_of_a_subclass_too() -> None:
    error = pickle.loads(pickle.dumps(Refused()))
    assert isinstance(error, Refused) and (error.code, error.facts) == ("refused", {"number": 1})


def test_an_error_of_another_process_keeps_its_code_and_facts() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.raises(UserError) as raised:
            pool.submit(refuse).result(60)
        # The pool is still usable: an exception that cannot be read breaks it.
        assert raised.value.facts == {"low": 16, "high": 1536} and pool.submit(int, "1").result(60) == 1
