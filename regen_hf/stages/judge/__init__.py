"""Side by side: a language model judges which of two models wrote better about the same user (section 5.2).

    RUN/evaluation/predictions.parquet, another one  ─►  requests, both orders  ─►  votes.parquet, results.json

Each pair of texts is shown twice in every vote, once with each text first, so that a judge who favours a place does not
favour a model. A vote is won by a text that wins in both orders, or once with a tie; else it is a tie. Texts that are
the same are a tie without a question. Answers that were paid for lie in `RUN/requests/judge.sqlite`.
"""
