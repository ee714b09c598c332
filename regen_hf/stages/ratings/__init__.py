"""Ratings: an ensemble of votes on history and narratives, aggregated to a score per attribute (section 3.3, table 3).

    run/sequences + run/narratives  ─►  votes.parquet    one row per vote: (user, stage, attribute) -> score, confidence
                                        ratings.parquet  schema.RATINGS, users in the order of the narratives
                                        agreement.json   agreement of the votes, and the votes that a score needs

Each of five stages is rated in a request of its own, so that the reasoning about one does not influence another: the
history (`example`), reason with explanation (`last_purchase`), profile and summaries (`user`), the endorsement, and the
critique of a user who has one.
Scores are 1 to 7. High is good except for `foresight`, the share of a text that became known only after the purchase,
and for `leak`, how far a critique gives the last purchase away.

The column `rater` contains the names of the models, or `reference` for the fixed rules, which are no language model.
The answers of the models are cached in `run/requests/ratings.sqlite`.
"""
