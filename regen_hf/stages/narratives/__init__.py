"""Narratives: six texts per user, written from the purchase history (section 3.2, tables 2 and 5).

    run/sequences/{train,validation,test}*.parquet  ─►  narratives.parquet   (schema.NARRATIVES, in the same order)

A language model writes the reason, its explanation, both summaries and the profile in one answer, from the whole
history with all reviews; it is told to keep what was experienced after the purchase out of the reason. The endorsement
is asked for apart, with the last review withheld. The fixed rules of `reference` withhold it from the reason too.

Who wrote stands in the column `narrator`: the name of the model, or `reference`, which is no language model. The column
`checks` says what was found in the texts. Answers that were paid for lie in `run/requests/narratives.sqlite`.
"""
