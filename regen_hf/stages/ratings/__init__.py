"""Ratings: an ensemble of votes on history and narratives, aggregated to a score per attribute (section 3.3, table 3).

    run/sequences + run/narratives  ─►  votes.parquet    one row per vote: (user, stage, attribute) -> score, confidence
                                        ratings.parquet  schema.RATINGS, users in the order of the narratives
                                        agreement.json   agreement of the votes, and the votes that a score needs

Each of four stages is rated in a request of its own, so that the reasoning about one does not influence another: the
history (`example`), reason with explanation (`last_purchase`), profile and summaries (`user`), and the endorsement.
Scores are 1 to 7. High is good except for `foresight`, the share of a text that became known only after the purchase.

The column `rater` contains the names of the models, or `reference` for the fixed rules, which are no language model.
The answers of the models are cached in `run/requests/ratings.sqlite`.
"""
