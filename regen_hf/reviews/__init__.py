"""Raw review and item files -> canonical tables; `ingest` reads them, the other modules are its steps."""
