"""Ratings: an ensemble of votes on history and narratives, aggregated to a score per attribute (section 3.3, table 3).

    run/sequences + run/narratives  ─►  votes.parquet    one row per vote: (user, stage, attribute) -> score, confidence
                                        ratings.parquet  schema.RATINGS, users in the order of the narratives
                                        agreement.json   how far the votes agree, and how many a score needs

Four stages are rated apart, so that the reasoning on one does not colour another: the history itself (`example`),
reason with explanation (`last_purchase`), profile and summaries (`user`), and the endorsement. Scores are 1 to 7. High
is good, but for `foresight`: it is the higher, the more of the text became known only after the purchase.

Who rated stands in the column `rater`: the names of the models, or `reference` for the fixed rules, which are no
language model. Answers that were paid for lie in `run/requests/ratings.sqlite`.
"""
