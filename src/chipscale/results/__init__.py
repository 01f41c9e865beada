"""Results: a store of records that is only ever added to, and two of its runs compared."""
