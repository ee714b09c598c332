"""Stage 1, sequences: raw reviews and items -> one row per user, the latest purchases oldest first, and the catalogue.

Exact duplicates, reviews of unknown items and of items without a title are taken out and counted (section 3.2). The
split is decided by the hash of the user id alone, so it is the same on every engine, in any row order and whoever else
is in the log. Rows stand in the order of that hash. The reviews are worked on in ranges of it, one after the other, so
that memory stays under a set limit at any size, and a finished range is not done again after an interruption.

    out/train-00000-of-00001.parquet   validation-*, test-*: `schema.SEQUENCES`
    out/items/items.parquet            `schema.ITEMS`: every item with a title, bought or not, by asin
    out/rejects.parquet                file, line, reason, raw: every line that gave no review or item
    out/accounting.json                lines read = kept + dropped for each reason
"""
