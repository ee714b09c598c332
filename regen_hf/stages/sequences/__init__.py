"""Stage 1, sequences: raw reviews and items -> one row per user, the latest purchases oldest first, and the catalogue.

Exact duplicates, reviews of unknown items and reviews of items without a title are dropped and counted (section 3.2).
Only the hash of the user id decides the split, so it is the same on every engine, in any row order and for any other
users. Rows are in the order of that hash. Reviews are processed in ranges of the hash, so that memory stays under a
limit at any size; an interrupted build reuses its finished ranges.

    out/train-00000-of-00001.parquet   validation-*, test-*: `schema.SEQUENCES`
    out/items/items.parquet            `schema.ITEMS`: every item with a title, bought or not, by asin
    out/rejects.parquet                file, line, reason, raw: every line without a review or item
    out/accounting.json                lines read = kept + dropped for each reason
"""
