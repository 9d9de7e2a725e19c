import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.jobs import SPECS, TERMINAL, Imagine, Inspect, JobKind, State, Train, from_json, to_json

PAYLOADS = {JobKind.INSPECT: Inspect, JobKind.TRAIN: Train, JobKind.IMAGINE: Imagine}


def test_every_kind_is_declared_once() -> None:
    assert {kind: spec.payload for kind, spec in SPECS.items()} == PAYLOADS
    assert len({spec.queue for spec in SPECS.values()}) == len(JobKind)
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED} == TERMINAL


@given(st.sampled_from(JobKind).flatmap(lambda kind: st.tuples(st.just(kind), st.builds(PAYLOADS[kind]))))
def test_a_payload_survives_the_wire(job: tuple[JobKind, Inspect | Train | Imagine]) -> None:
    kind, payload = job
    assert from_json(kind, json.loads(json.dumps(to_json(payload)))) == payload


@pytest.mark.parametrize("values", [{}, {"avatar_id": "a", "colour": "red"}])
def test_a_payload_with_wrong_fields_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(TypeError):
        from_json(JobKind.INSPECT, values)
