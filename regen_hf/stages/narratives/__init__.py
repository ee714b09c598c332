"""Narratives: six texts per user, and a critique for some, from the purchase history (section 3.2, tables 2 and 5).

    run/sequences/{train,validation,test}*.parquet  ─►  narratives.parquet   (schema.NARRATIVES, in the same order)

A language model writes the reason, its explanation, both summaries and the profile in one answer, from the full history
with all reviews. The prompt excludes experience after the purchase from the reason. A second request is for the
endorsement; it withholds the last review.

A third request is for critiques (arXiv 2503.11924): what a customer who was shown the purchase before the last would
ask to be different, and the last one meets. It shows both items without reviews, and is sent for users whose last two
purchases are similar. A hash of the user id chooses one of its texts; the column `critiques` contains all of them.

The fixed rules of `reference` withhold the last review from the reason too. The column `narrator` is the name of the
model, or `reference` for the fixed rules, which are no language model. The column `checks` contains the results of the
checks of each text. The answers of the model are cached in `run/requests/narratives.sqlite`.
"""
