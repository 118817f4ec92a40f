"""The choice among endpoints: few choices change when one comes or goes, and none is mistaken for another."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.session.endpoints import Endpoints
from mcp_manager.transports.http.connections.endpoint import Endpoint

PLACES = st.builds(
    Endpoint,
    st.integers(1, 40).map(lambda number: f"10.0.0.{number}"),
    st.sampled_from([80, 81]),
    st.integers(0, 2),
    st.sampled_from([0.5, 1.0, 4.0]),
)
FOUND = st.lists(PLACES, max_size=30, unique_by=lambda place: (place.address, place.port, place.tier))
SEEDS = st.integers(0, 2**64 - 1)
COUNTS = st.integers(0, 12)


def chosen(endpoints: Endpoints, count: int) -> set[Endpoint]:
    return {endpoints[index] for index in endpoints.chosen(count)}


@given(SEEDS, FOUND, COUNTS)
def test_as_many_are_used_as_are_wanted_or_there(seed: int, found: list[Endpoint], count: int) -> None:
    endpoints = Endpoints(seed)
    endpoints.replace(found, ())
    used = chosen(endpoints, count)
    assert len(used) == min(count, len(found)) == len(endpoints.chosen(count))
    assert used <= set(found)
    # No endpoint of a later tier is chosen before one of an earlier tier.
    worst = max((place.tier for place in used), default=0)
    assert {place for place in found if place.tier < worst} <= used


@given(SEEDS, FOUND.filter(bool), COUNTS, st.randoms(use_true_random=False))
def test_one_that_goes_moves_one_at_most(seed: int, found: list[Endpoint], count: int, random: object) -> None:
    endpoints = Endpoints(seed)
    endpoints.replace(found, ())
    before = chosen(endpoints, count)
    gone = random.choice(found)  # type: ignore[attr-defined]
    endpoints.replace([place for place in found if place is not gone], ())
    after = chosen(endpoints, count)
    assert before - after <= {gone}
    assert len(after - before) <= (gone in before)
    # When it comes back, the choice is as before.
    endpoints.replace(found, ())
    assert chosen(endpoints, count) == before


@given(SEEDS, FOUND, COUNTS)
def test_one_more_is_one_more(seed: int, found: list[Endpoint], count: int) -> None:
    endpoints = Endpoints(seed)
    endpoints.replace(found, ())
    assert set(endpoints.chosen(count)) <= set(endpoints.chosen(count + 1))


@given(st.lists(FOUND, min_size=1, max_size=8), st.data())
def test_a_number_means_one_place_for_as_long_as_it_is_used(looks: list[list[Endpoint]], data: st.DataObject) -> None:
    endpoints = Endpoints(1)
    in_use: dict[int, tuple[str, int, int]] = {}
    for found in looks:
        endpoints.replace(found, set(in_use))
        for index, place in in_use.items():
            still = endpoints[index]
            assert (still.address, still.port, still.tier) == place
        numbers = endpoints.chosen(len(found))
        assert len(numbers) == len(set(numbers)) == len(endpoints)
        for index in numbers:
            place = endpoints[index]
            in_use[index] = (place.address, place.port, place.tier)
        ended = data.draw(st.sets(st.sampled_from(sorted(in_use)))) if in_use else set()
        for index in ended:
            del in_use[index]
    # An endpoint that is gone and no longer used is forgotten.
    endpoints.replace([], set(in_use))
    assert set(endpoints._by_index) == set(in_use)


def test_managers_spread_over_all_places_in_the_measure_of_their_weights() -> None:
    found = [Endpoint(f"10.0.0.{number}", 80, 0, 3.0 if number == 0 else 1.0) for number in range(8)]
    uses: Counter[str] = Counter()
    for seed in range(2000):
        endpoints = Endpoints(seed)
        endpoints.replace(found, ())
        uses.update(place.address for place in chosen(endpoints, 1))
    # 3 in 10 and 1 in 10 of 2000 draws, more than five standard deviations apart from anything else.
    assert 490 < uses["10.0.0.0"] < 710
    assert all(130 < uses[place.address] < 275 for place in found[1:])
