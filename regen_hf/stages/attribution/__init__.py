"""Attribution (section 6): what soft tokens consist of, which word tokens are near, and the influence of purchases.

soft_tokens.py   the soft token of every item and its CF and content parts: norms, nearest word tokens, the map
left_out.py      the effect of each purchase of a history on the likelihood of a narrative
deletion.py      whether cited sentences go without the cited purchases, and stay with only them
robustness.py    how often the profile changes with changes of the history that say nothing new

attribution/
  items.parquet      the norms of every item's soft token and of its parts
  map.parquet        positions of soft tokens, parts and word tokens in two dimensions (t-SNE)
  left_out.parquet   the effect of every purchase on every narrative of a few users
  cited.parquet      the sentences of the tested narratives with the purchases that they cite
  results.json       the tests with intervals, the norm shares by popularity, nearest words, and the methods
"""
