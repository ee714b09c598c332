"""Pictures of a run, drawn from the files that its stages left; a stage that is not there has none.

    data.py      item_counts.png, history_lengths.png, ratings_over_time.png, split_sizes.png
    ratings.py   rated_….png, richness.png, agreement.png, votes_needed.png   the autorater
    results.py   scores.png, loss.png   evaluation and training
    reading.py   soft_tokens.png, soft_token_parts.png, norm_shares.png, left_out_….png   the model, read

A topic is a module with `draw(run)`, which yields (file name without suffix, figure) for all that the run has of it.
"""
