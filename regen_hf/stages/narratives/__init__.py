"""Narratives: six texts per user, written from the purchase history (section 3.2, tables 2 and 5).

    run/sequences/{train,validation,test}*.parquet  ─►  narratives.parquet   (schema.NARRATIVES, in the same order)

A language model writes the reason, its explanation, both summaries and the profile in one answer, from the full history
with all reviews. The prompt excludes experience after the purchase from the reason. A second request is for the
endorsement; it withholds the last review. The fixed rules of `reference` withhold it from the reason too.

The column `narrator` is the name of the model, or `reference` for the fixed rules, which are no language model. The
column `checks` contains the results of the checks of each text. The answers of the model are cached in
`run/requests/narratives.sqlite`.
"""
