"""What an engine is told: the document's word, else the model's, else nothing that changes anything."""

from service.sampling import OFF, ModelSampling, SamplingSpec

OWN = ModelSampling(top_p=0.95, top_k=20, repetition_penalty=1.05)


def test_fields_that_a_document_leaves_out_are_the_models_own() -> None:
    resolved = SamplingSpec(top_k=0, max_tokens=9).resolved_for(OWN)

    assert (resolved.top_p, resolved.top_k, resolved.min_p, resolved.repetition_penalty) == (0.95, 0, 0.0, 1.05)
    assert (resolved.temperature, resolved.max_tokens) == (0.7, 9)


def test_fields_that_nobody_states_change_nothing_and_resolving_again_neither() -> None:
    resolved = SamplingSpec().resolved_for(ModelSampling())

    assert ModelSampling(**{name: getattr(resolved, name) for name in ModelSampling.__slots__}) == OFF
    assert resolved.resolved_for(OWN) == resolved
