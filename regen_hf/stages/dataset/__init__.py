"""The dataset repository: histories, narratives and scores joined into files for `load_dataset`.

dataset/
  README.md                                the card; its YAML assigns files to splits
  <name>/<split>-00000-of-00001.parquet    one row per user (schema.ROW), in shards below 500 MB
  <name>-items/items-00000-of-00001.parquet    the catalogue (schema.ITEMS)
  <name>-interactions/interactions-00000-of-00001.parquet    one row per purchase (schema.INTERACTIONS)
"""
