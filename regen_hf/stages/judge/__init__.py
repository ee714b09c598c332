"""A language model judges which of two models wrote the better text about a user (side by side, section 5.2).

    RUN/evaluation/predictions.parquet, other predictions  ─►  requests, both orders  ─►  votes.parquet, results.json

Each vote shows both texts in both orders, so that a preference for a position does not favour a model. A text wins a
vote if it wins in both orders, or in one with a tie in the other; otherwise the vote is a tie. Equal texts are a tie
without a request. Answers are cached in `RUN/requests/judge.sqlite`.
"""
