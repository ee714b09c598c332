"""The dataset repository: histories, narratives and scores joined to what `load_dataset` reads.

dataset/
  README.md                                the card, with the YAML that tells `load_dataset` which file is which split
  <name>/<split>-00000-of-00001.parquet    one row per user (schema.ROW), in shards below 500 MB
  <name>-items/items-00000-of-00001.parquet    the catalogue (schema.ITEMS)
"""
