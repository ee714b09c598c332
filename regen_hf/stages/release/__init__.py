"""The official REGEN release -> rows with their narratives and scores, and the catalogue of the items bought.

    office.jsonl  ─►  out/train-00000-of-00001.parquet   validation-*, test-*: `schema.ROW`
                      out/items/items.parquet            `schema.ITEMS`: every item bought, by asin
                      out/rejects.parquet                file, line, reason, raw: every line without a user
                      out/accounting.json                lines read = users kept + dropped for each reason

A line of the release is a user. This stage replaces the stages sequences, narratives and ratings: it decides splits by
the same rule and orders rows by the same hash. Histories keep the order of the release, because its narratives are
about their last entry. The time field may be `unix_time` or `timestamp`, in the forms of raw reviews or as MM/DD/YYYY.
A price of 0 becomes null, and so does a score outside 1..7.

Lines are read in chunks, and rows are sorted in ranges of the users' hashes, so that memory stays under a limit.
"""
