"""Random numbers of tokens, epochs and claims."""

import os
import random

import pytest

from trio_durable._random_bits import random_bits


def test_numbers_have_62_bits_and_differ_over_several_blocks() -> None:
    numbers = [random_bits() for _ in range(2_000)]
    assert len(set(numbers)) == len(numbers)
    assert 2**61 < max(numbers) < 2**62


def test_the_seed_of_a_program_does_not_matter() -> None:
    random.seed(7)
    before = random_bits()
    random.seed(7)
    assert random_bits() != before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_draws_other_numbers() -> None:
    random_bits()  # so that the parent has a block
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(random_bits()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 100)) != random_bits()
    os.close(reading)
    os.close(writing)
