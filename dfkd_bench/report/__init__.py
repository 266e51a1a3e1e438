"""Everything drawn from records: records -> long table -> statistics -> renderings."""
