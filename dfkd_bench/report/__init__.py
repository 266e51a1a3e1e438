"""From records to tables: records -> long table -> statistics -> renderings."""
