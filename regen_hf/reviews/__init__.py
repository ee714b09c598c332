"""The part of the sequences that reads raw files: `reading` is its door, `files` says where the files are."""
