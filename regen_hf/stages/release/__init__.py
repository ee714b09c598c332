"""The official REGEN release -> rows, its narratives and scores with them, and the catalogue that they imply.

    office.jsonl  ─►  out/train-00000-of-00001.parquet   validation-*, test-*: `schema.ROW`
                      out/items/items.parquet            `schema.ITEMS`: every item bought, by asin
                      out/rejects.parquet                file, line, reason, raw: every line that is no user
                      out/accounting.json                lines read = users kept + dropped for each reason

A line of the release is a user. It takes the place of the stages sequences, narratives and ratings: a split is decided
as theirs, rows stand in the order of the same hash, and later stages see no difference. The histories stay in the order
of the release, because its narratives are about their last entry. Both names of the time field are taken (`unix_time`,
`timestamp`), as seconds, milliseconds or a date. A price of 0 is none, and a score outside 1..7 is null.

The lines are read in chunks, and the chunks put together in ranges of the users' hashes, one after the other: memory
stays under a set limit at any size.
"""
