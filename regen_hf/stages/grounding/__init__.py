"""Grounding: which claims of a narrative this user's own record bears out (appendix H: the model hallucinates).

    predictions.parquet, references  ─►  claims  ─►  facts by rules, the rest by entailment  ─►  claims.parquet

A narrative is cut into claims (clauses). Fixed rules find in each what can be looked up: items, brands, categories and
colours by the catalogue's own vocabulary, prices, ratings, counts, and verdicts on a named item; see `facts`. A claim
is supported if all of its facts are, unsupported if one is not, and unchecked if it has none, or says which of several
leads or what came first, which no rule looks up. An NLI cross-encoder (`nli`) or a
language model (`backend`) may be given the unchecked ones.

- precision: supported claims over checked ones
- recall: the reference's claims that the narrative covers, over those that can be compared; a claim is covered if the
  narrative says the same of each of its facts, or, where it has none and a model is asked, if the narrative entails
  it. A prediction that says nothing has recall 0 and no precision

Precision of the references themselves stands under the model `reference`. What the checker itself is worth is measured
on planted claims by `benchmarks/grounding.py`.
"""
