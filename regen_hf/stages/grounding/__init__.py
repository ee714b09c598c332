"""Grounding: which claims of a narrative the user's own record supports (appendix H: the model hallucinates).

    predictions.parquet, references  ─►  claims  ─►  facts by rules, the rest by entailment  ─►  claims.parquet

A narrative is cut into claims (clauses). Fixed rules find the facts in each: items, brands, categories and colours by
the vocabulary of the catalogue, prices, ratings, counts, opinions about a named item, what was bought most often, first
and last, and recipients of gifts; see `facts`. A claim is supported if all of its facts are, unsupported if one is not,
and unchecked if it has none, or states an opinion, a comparison or an order in words that no rule knows. An NLI
cross-encoder (`nli`) or a language model (`backend`) can judge the unchecked claims.

- precision: supported claims over checked claims
- recall: the claims of the reference that the narrative covers, over those that can be compared. A claim is covered if
  the narrative states each of its facts, or, for a claim without facts, if a model finds that the narrative entails
  it. An empty prediction has recall 0 and no precision

The model `reference` holds the precision of the references themselves, and `own_choice` that of the endorsements which
the next item stage wrote about the model's own first choice; they have no recall, because their reference is about
another item. `benchmarks/grounding.py` measures the checker on planted claims.
"""
