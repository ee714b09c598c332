"""Figures of a run, drawn from the available outputs of its stages.

    data.py          item_counts.png, history_lengths.png, ratings_over_time.png, split_sizes.png
    ratings.py       rated_….png, richness.png, agreement.png, votes_needed.png
    results.py       scores.png, loss.png
    attribution.py   soft_tokens.png, soft_token_parts.png, norm_shares.png, left_out_….png

A topic is a module with `draw(run)`, which yields (file name without suffix, figure).
"""
