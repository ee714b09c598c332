"""Reading the model (section 6): what its soft tokens are made of, where they lie, and which purchases made it say so.

soft_tokens.py   the soft token of every item with its CF and content parts: norms, nearest word tokens, the map
left_out.py      what each purchase of a history does to the likelihood of a narrative

reading/
  items.parquet      the norms of every item's soft token and of its parts
  map.parquet        places of soft tokens, parts and word tokens in two dimensions (t-SNE)
  left_out.parquet   the effect of every purchase on every narrative of a few users
  results.json       the norm shares by popularity, nearest words, and how they were measured
"""
